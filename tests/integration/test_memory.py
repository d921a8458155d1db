"""Memory and swap of a container, against its limits and its own counters."""

from __future__ import annotations

import mmap
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from procscope.tree.live import REUSE_NS
from tests.integration.agents import Agent, agent
from tests.integration.cgroups import Group, container, new_id, version_of, write
from tests.integration.files import meminfo, meminfo_of, proc

NS_PER_S = 1_000_000_000
MIB = 1 << 20
KIB_PER_MIB = 1 << 10
PAGE_KB = mmap.PAGESIZE // 1024
SLACK_KB = 4 * KIB_PER_MIB
"""The kernel charges in batches, for each CPU, and the agent itself uses a little."""

_KEPT: list[object] = []


def touch(size: int) -> None:
    """Use so many bytes, and keep them."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for offset in range(0, size, mmap.PAGESIZE):
        memory[offset] = 1
    _KEPT.append(memory)


def give_back() -> None:
    for memory in _KEPT:
        if isinstance(memory, mmap.mmap):
            memory.close()
    _KEPT.clear()


def write_file(path: str, size: int) -> None:
    with open(path, "wb") as file:
        for _ in range(size // MIB):
            file.write(bytes(MIB))
        os.fsync(file.fileno())


def read_file(path: str) -> int:
    with open(path, "rb") as file:
        return sum(len(block) for block in iter(lambda: file.read(MIB), b""))


def drop_from_cache(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


@pytest.fixture
def limited() -> Iterator[tuple[Group, Agent]]:
    with container(memory_bytes=256 * MIB) as group, agent(group) as reader:
        yield group, reader


def renewed_meminfo(mount: Path, reader: Agent) -> Mapping[str, int]:
    """What is true now: a rendering that was given out before is not given out again."""
    time.sleep(REUSE_NS / NS_PER_S)
    return meminfo(mount, reader)


def test_the_total_is_the_limit_and_nothing_exceeds_it(
    mount: Path, limited: tuple[Group, Agent]
) -> None:
    found = meminfo(mount, limited[1])
    assert found["MemTotal"] == 262144
    # Swap has a limit of its own, which this container has none of.
    host_only = {"VmallocTotal", "Hugepagesize", "CommitLimit", "SwapTotal", "SwapFree"}
    hardware = {name for name in found if name.startswith("DirectMap")}
    for name in found.keys() - host_only - hardware:
        assert found[name] <= found["MemTotal"], name
    assert found["MemFree"] <= found["MemAvailable"] <= found["MemTotal"]
    assert found["SwapFree"] <= found["SwapTotal"]
    assert found.keys() == meminfo_of(Path("/proc/meminfo").read_text()).keys()


def test_without_a_limit_the_total_is_the_hosts(mount: Path) -> None:
    with container() as group, agent(group) as reader:
        host_kb = meminfo_of(Path("/proc/meminfo").read_text())["MemTotal"]
        assert meminfo(mount, reader)["MemTotal"] == host_kb


def test_a_limit_above_the_hosts_memory_is_the_hosts_memory(mount: Path) -> None:
    host_kb = meminfo_of(Path("/proc/meminfo").read_text())["MemTotal"]
    with container(memory_bytes=host_kb * 2048) as group, agent(group) as reader:
        assert meminfo(mount, reader)["MemTotal"] == host_kb


def test_a_changed_limit_is_seen_within_milliseconds(
    mount: Path, limited: tuple[Group, Agent]
) -> None:
    """As long as a rendering is given out again."""
    group, reader = limited
    for limit_mib in (300, 64, 1000, 100, 256):
        group.set_memory(limit_mib * MIB)
        assert renewed_meminfo(mount, reader)["MemTotal"] == limit_mib * KIB_PER_MIB


def test_the_smallest_limit_above_counts_with_all_that_is_used_under_it(mount: Path) -> None:
    """A pod: its limit is shared, so what one container uses is missing to the other."""
    with (
        container(memory_bytes=400 * MIB, path=f"/pod-{new_id()[:8]}") as pod,
        pod.child(new_id()) as one,
        pod.child(new_id()) as other,
        agent(one) as reader,
        agent(other) as neighbour,
    ):
        before = meminfo(mount, reader)
        assert before["MemTotal"] == 400 * KIB_PER_MIB
        neighbour.call(touch, 64 * MIB)
        after = renewed_meminfo(mount, reader)
        gone = before["MemFree"] - after["MemFree"]
        assert abs(gone - 64 * KIB_PER_MIB) < SLACK_KB
        assert after["AnonPages"] <= before["AnonPages"] + SLACK_KB


def test_memory_that_is_touched_moves_used_by_as_much(
    mount: Path, limited: tuple[Group, Agent]
) -> None:
    _, reader = limited
    before = meminfo(mount, reader)
    reader.call(touch, 100 * MIB)
    after = renewed_meminfo(mount, reader)
    for name, sign in (("MemFree", -1), ("MemAvailable", -1), ("AnonPages", 1)):
        moved = sign * (after[name] - before[name])
        assert abs(moved - 100 * KIB_PER_MIB) < SLACK_KB, name
    reader.call(give_back)
    given_back = renewed_meminfo(mount, reader)
    assert abs(given_back["AnonPages"] - before["AnonPages"]) < SLACK_KB


def test_a_file_that_is_read_moves_the_cache_and_stays_available(
    mount: Path, limited: tuple[Group, Agent]
) -> None:
    """On a file system without a page cache of its own (tmpfs) it is shared memory instead."""
    _, reader = limited
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as file:
        before = meminfo(mount, reader)
        reader.call(write_file, file.name, 32 * MIB)
        reader.call(drop_from_cache, file.name)
        reader.call(read_file, file.name)
        after = renewed_meminfo(mount, reader)
        moved = after["Cached"] - before["Cached"]
        assert abs(moved - 32 * KIB_PER_MIB) < SLACK_KB
        kept = ("Shmem", "Unevictable")  # on tmpfs and on ramfs there is nothing to drop
        if all(after[name] - before[name] < SLACK_KB for name in kept):
            gone = before["MemAvailable"] - after["MemAvailable"]
            assert gone < SLACK_KB
        drop_from_cache(file.name)


def test_every_figure_is_the_cgroups_own(mount: Path, limited: tuple[Group, Agent]) -> None:
    group, reader = limited
    reader.call(touch, 20 * MIB)
    found, stat = renewed_meminfo(mount, reader), group.memory_stat()
    prefix, names = (
        ("total_", {"AnonPages": "rss", "Cached": "cache", "Mapped": "mapped_file"})
        if version_of("memory") == 1
        else ("", {"AnonPages": "anon", "Cached": "file", "Mapped": "file_mapped"})
    )
    names |= {"Active(anon)": "active_anon", "Inactive(anon)": "inactive_anon"}
    for field, name in names.items():
        assert abs(found[field] - int(stat[prefix + name]) // 1024) <= 256 * PAGE_KB, field
    used = found["MemTotal"] - found["MemFree"]
    assert abs(used - group.memory_usage_bytes() // 1024) <= 256 * PAGE_KB


def test_swaps_tells_what_meminfo_tells(mount: Path, limited: tuple[Group, Agent]) -> None:
    """One line with its total and use where there is any swap; else the header alone."""
    group, reader = limited
    swap_file = group.file("memory", "memory.memsw.limit_in_bytes", "memory.swap.max")
    host_kb = meminfo_of(Path("/proc/meminfo").read_text())["SwapTotal"]
    for limit_mib in (0, 16, 64):
        if swap_file.exists():
            of_memory = 256 if version_of("memory") == 1 else 0
            write(swap_file, str((of_memory + limit_mib) * MIB))
        found = meminfo(mount, reader)
        header, *lines = proc(mount, "swaps", reader).splitlines()
        assert header.split() == ["Filename", "Type", "Size", "Used", "Priority"]
        if swap_file.exists():
            assert found["SwapTotal"] == min(limit_mib * KIB_PER_MIB, host_kb)
        assert len(lines) == (found["SwapTotal"] > 0)
        for line in lines:
            size, used = map(int, line.split()[2:4])
            assert size == found["SwapTotal"]
            assert used == found["SwapTotal"] - found["SwapFree"]


@contextmanager
def swap_space() -> Iterator[None]:
    """The host has 64 MiB of swap space at least for this long."""
    if meminfo_of(Path("/proc/meminfo").read_text())["SwapFree"] >= 64 * KIB_PER_MIB:
        yield
        return
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as file:
        file.write(bytes(80 * MIB))
        file.flush()
        subprocess.run(["mkswap", file.name], check=True, capture_output=True)
        subprocess.run(["swapon", file.name], check=True, capture_output=True)
        try:
            yield
        finally:
            subprocess.run(["swapoff", file.name], check=True)


def test_what_is_swapped_out_is_seen(mount: Path) -> None:
    with swap_space(), container(memory_bytes=32 * MIB) as group, agent(group) as reader:
        swap_file = group.file("memory", "memory.memsw.limit_in_bytes", "memory.swap.max")
        if version_of("memory") == 1:
            write(swap_file, str((32 + 60) * MIB))
        else:
            write(swap_file, str(60 * MIB))
        reader.call(touch, 48 * MIB)
        found = meminfo(mount, reader)
        assert found["SwapTotal"] == 60 * KIB_PER_MIB
        assert found["SwapTotal"] - found["SwapFree"] > 8 * KIB_PER_MIB
        assert found["MemTotal"] == 32 * KIB_PER_MIB
        assert found["MemFree"] < 24 * KIB_PER_MIB
        size, used = map(int, proc(mount, "swaps", reader).splitlines()[1].split()[2:4])
        assert size == 60 * KIB_PER_MIB
        assert abs(used - (found["SwapTotal"] - found["SwapFree"])) < SLACK_KB
