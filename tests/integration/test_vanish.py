"""Containers that go while they are read: a whole file each time, and never a former one's."""

from __future__ import annotations

import os
from pathlib import Path

from tests.integration import agents
from tests.integration.agents import Agent, agent
from tests.integration.cgroups import ROOT, container, new_id
from tests.integration.files import meminfo_of, proc
from tests.integration.test_mount import READABLE

MIB = 1 << 20
LARGE = 1 << 20


def total_mib(text: bytes) -> int:
    return meminfo_of(text.decode())["MemTotal"] // 1024


def open_all(mount: str) -> list[int]:
    return [os.open(f"{mount}/proc/{name}", os.O_RDONLY) for name in READABLE]


def read_all(descriptors: list[int]) -> list[bytes]:
    return [os.pread(descriptor, LARGE, 0) for descriptor in descriptors]


def close_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def test_a_cgroup_that_goes_between_open_and_read(mount: Path) -> None:
    """The content was fixed at the open; read from the start again it is that of where one is."""
    with (
        container(memory_bytes=200 * MIB) as other,
        container(memory_bytes=100 * MIB) as group,
        agent(group) as reader,
    ):
        files = reader.call(open_all, str(mount))
        reader.move(other)
        for directory in group.directories:
            directory.rmdir()
        texts = dict(zip(READABLE, reader.call(read_all, files), strict=True))
        assert total_mib(texts["meminfo"]) == 100
        assert all(text.endswith(b"\n") for name, text in texts.items() if name != "diskstats")
        again = dict(zip(READABLE, reader.call(read_all, files), strict=True))
        assert total_mib(again["meminfo"]) == 200
        assert all(text.endswith(b"\n") for name, text in again.items() if name != "diskstats")
        reader.call(close_all, files)


def test_a_cgroup_that_goes_between_two_opens(mount: Path) -> None:
    with agent() as reader:
        for limit_mib in (100, 110, 120):
            with container(memory_bytes=limit_mib * MIB) as group:
                reader.move(group)
                for name in READABLE:
                    text = proc(mount, name, reader)
                    assert text.endswith("\n") or name == "diskstats"
                assert total_mib(proc(mount, "meminfo", reader).encode()) == limit_mib
                reader.move(ROOT)
            assert proc(mount, "meminfo", reader).endswith("\n")


def test_a_cgroup_made_again_at_the_same_path_is_another_one(mount: Path) -> None:
    """With its own limit and its own age, also for a worker that knew the former."""
    path = f"/{new_id()}"
    for limit_mib in (100, 200, 100, 300):
        with container(memory_bytes=limit_mib * MIB, path=path) as group:
            for _ in range(4):
                with agent(group) as reader:
                    assert total_mib(proc(mount, "meminfo", reader).encode()) == limit_mib
            with agent(group) as reader:
                lines = proc(mount, "stat", reader)
                assert lines.startswith("cpu  ")


def shuttle(mount: str, here: object, there: object, times: int) -> int:
    """Move to and fro, and read all the time; return how often a file was not whole."""
    bad = 0
    for number in range(times):
        (there if number % 2 else here).add(0)  # type: ignore[attr-defined]
        text = agents.read(f"{mount}/proc/meminfo")
        bad += not (text.startswith(b"MemTotal:") and text.endswith(b" kB\n"))
    return bad


def test_readers_of_containers_that_come_and_go_get_whole_files(mount: Path) -> None:
    with container(memory_bytes=100 * MIB) as stable, agent(stable) as one, agent(stable) as two:
        for number in range(30):
            with container(memory_bytes=(50 + number) * MIB) as passing:
                for reader in (one, two):
                    reader.send(shuttle, str(mount), passing, stable, 10)
                assert [reader.receive() for reader in (one, two)] == [0, 0]


def test_what_was_opened_inside_may_be_read_outside_afterwards(mount: Path, host: Agent) -> None:
    """A descriptor outlives its container; read anew it tells of whoever reads."""
    with agent() as reader:
        with container(memory_bytes=100 * MIB) as group:
            reader.move(group)
            (descriptor, *others) = reader.call(open_all, str(mount))
            reader.move(ROOT)
        for _ in range(3):
            assert reader.call(os.pread, descriptor, LARGE, 0).endswith(b"\n")
        reader.call(close_all, [descriptor, *others])
    assert proc(mount, "meminfo", host).endswith("\n")
