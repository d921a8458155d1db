"""diskstats, pressure and slabinfo: a container's own, and nothing of the host's."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from procscope.observe.boottime import NS_PER_SECOND
from procscope.tree.live import REUSE_NS
from tests.integration import agents
from tests.integration.agents import Agent, agent
from tests.integration.cgroups import container, mount_of, mounts
from tests.integration.daemons import daemon
from tests.integration.files import proc
from tests.integration.waiting import eventually

MIB = 1 << 20
SECTOR_BYTES = 512


@contextmanager
def disk(size: int) -> Iterator[str]:
    """A block device of the test's own."""
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as file:
        os.truncate(file.name, size)
        found = subprocess.run(
            ["losetup", "--find", "--show", file.name],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        device = found.stdout.strip()
        try:
            yield device
        finally:
            subprocess.run(["losetup", "--detach", device], check=True)


def transfer(device: str, size: int, *, write: bool) -> int:
    """Read or write `size` bytes past the page cache, 64 KiB at a time."""
    flags = os.O_WRONLY if write else os.O_RDONLY
    descriptor = os.open(device, flags | os.O_DIRECT)
    block = mmap.mmap(-1, 64 << 10)  # aligned, as O_DIRECT wants it
    done = 0
    while done < size:
        done += os.writev(descriptor, [block]) if write else os.readv(descriptor, [block])
    os.close(descriptor)
    block.close()
    return done


def write_disk(device: str, size: int) -> int:
    return transfer(device, size, write=True)


def read_disk(device: str, size: int) -> int:
    return transfer(device, size, write=False)


def columns(mount: Path, reader: Agent, name: str) -> list[int]:
    """The counters of one device, empty where the container has not used it."""
    for line in proc(mount, "diskstats", reader).splitlines():
        fields = line.split()
        if fields[2] == name:
            return [int(field) for field in fields[3:]]
    return []


def test_direct_io_shows_in_diskstats_and_not_in_a_siblings() -> None:
    with (
        disk(64 * MIB) as device,
        daemon() as served,
        container() as group,
        container() as sibling,
        agent(group) as reader,
        agent(sibling) as neighbour,
    ):
        mount, name = served.mountpoint, os.path.basename(device)

        def counted() -> list[int]:
            reader.call(write_disk, device, 64 << 10)
            return columns(mount, reader, name)

        # Kernels that count on v1 only once it is asked for are asked by the daemon as it starts.
        before = eventually(counted)
        reader.call(write_disk, device, 16 * MIB)
        reader.call(read_disk, device, 8 * MIB)
        # The transfers may take less time than a rendering is given out again.
        time.sleep(2 * REUSE_NS / NS_PER_SECOND)
        after = columns(mount, reader, name)
        moved = [now - then for now, then in zip(after, before, strict=True)]
        assert moved[2] * SECTOR_BYTES == 8 * MIB
        assert moved[6] * SECTOR_BYTES == 16 * MIB
        assert moved[0] >= 1
        assert moved[4] >= 1
        host_line = next(
            line for line in Path("/proc/diskstats").read_text().splitlines() if f" {name} " in line
        )
        assert len(after) == len(host_line.split()) - 3
        assert columns(mount, neighbour, name) == []


def test_a_container_that_has_used_no_disk_has_none(mount: Path) -> None:
    with container() as group, agent(group) as reader:
        assert proc(mount, "diskstats", reader) == ""


def kernels_answer(path: Path) -> tuple[int, bytes]:
    """What open(2) and read(2) of a container's own pressure file say."""
    try:
        return 0, agents.read(str(path))
    except OSError as error:
        return error.errno or -1, b""


@pytest.mark.parametrize("resource", ["cpu", "io", "memory"])
def test_pressure_is_what_the_kernel_says_of_the_container(mount: Path, resource: str) -> None:
    """Numbers where there are any, else the kernel's errno: never the host's numbers."""
    unified = mount_of("")
    with container() as group, agent(group) as reader:
        path = str(mount / "proc/pressure" / resource)
        ours = reader.call(agents.errno_of, agents.read, path)
        if unified is None:
            assert ours == errno.ENOENT
            return
        own = group.directory("") / f"{resource}.pressure"
        code, before = kernels_answer(own)
        assert ours == code
        if code:
            return
        text = reader.call(agents.read, path)
        _, after = kernels_answer(own)
        kinds = [line.split()[0] for line in text.splitlines()]
        assert kinds == [line.split()[0] for line in before.splitlines()]
        for low, now, high in zip(totals(before), totals(text), totals(after), strict=True):
            assert low <= now <= high


def totals(text: bytes) -> list[int]:
    return [int(line.rpartition(b"total=")[2]) for line in text.splitlines()]


def test_without_a_v2_cgroup_of_its_own_there_is_no_pressure(mount: Path) -> None:
    """A v1 runtime on a hybrid host may leave the container in the v2 root."""
    if not any(one.version == 1 and "memory" in one.controllers for one in mounts()):
        return  # every container is in v2 here
    with container() as group, agent(group) as reader:
        for one in mounts():
            if one.version == 2:
                (one.mountpoint / "cgroup.procs").write_text(str(reader.pid))
        for resource in ("cpu", "io", "memory"):
            path = str(mount / "proc/pressure" / resource)
            assert reader.call(agents.errno_of, agents.read, path) == errno.ENOENT


def test_slabinfo_has_the_header_only_and_is_for_root(mount: Path, host: Agent) -> None:
    with container() as group, agent(group) as reader:
        lines = proc(mount, "slabinfo", reader).splitlines()
        assert len(lines) == 2
        assert lines[0].startswith("slabinfo - version:")
        assert lines[1].startswith("# name")
        assert reader.call(os.stat, str(mount / "proc/slabinfo")).st_mode & 0o777 == 0o400
    assert len(proc(mount, "slabinfo", host).splitlines()) > 2
