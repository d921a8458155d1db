"""Targets: views that take a host's text, and whole cgroups of any content behind every view."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from procscope.cgroup.hierarchy import discover
from procscope.cgroup.model import (
    CpuUsage,
    IoCounters,
    Memory,
    MemoryLimit,
    MemoryStat,
    Missing,
    SwapV2,
)
from procscope.containers.container import Container, container_of_paths
from procscope.ids import CgroupPath, CpuId
from procscope.observe.host import HostFiles
from procscope.observe.observatory import Observatory
from procscope.observe.registry import VIEWS, View
from procscope.views import (
    cpu_sysfs,
    cpuinfo,
    diskstats,
    meminfo,
    pressure,
    slabinfo,
    stat,
    swaps,
)
from procscope.views.cpu_ledger import CpuLedger
from procscope.views.cpu_time import advance
from procscope.views.hugepage import size_name
from procscope.views.swap import SwapSpace
from tests.fuzz.checks import attempt, parts, require
from tests.fuzz.parsers import folder
from tests.unit.cgroup.trees import CONTROLLERS, V2_MOUNT, mount_line, mounts_below, write_tree
from tests.unit.observe.fakehost import MEMINFO

SEEN = (CpuId(0), CpuId(2))
LIMIT_BYTES = 64 << 20
_MEMORY = Memory(
    MemoryLimit(LIMIT_BYTES, 5 << 20),
    MemoryStat(anon_bytes=3 << 20, file_bytes=2 << 20),
    SwapV2(limit_bytes=Missing.UNLIMITED, usage_bytes=1 << 20),
)
USAGE = CpuUsage(10**9, 0, 10**9, 10**8, per_cpu=None)
LEDGER: CpuLedger = advance(None, USAGE, SEEN, 10**10, per_cpu=False)
_IO = {(8, 0): IoCounters(read_bytes=4096, reads=1), (259, 3): IoCounters(writes=2)}

SYSFS_FILES = (
    "online",
    "enabled",
    "nohz_full",
    "cpu0/topology/core_cpus_list",
    "cpu0/topology/core_cpus",
    "cpu0/cache/index0/shared_cpu_map",
    "cpufreq/policy0/related_cpus",
    "cpufreq/policy1/affected_cpus",
)


def _check_whole(content: bytes | None) -> None:
    """A file that a container gets ends with a line; b"" is a machine without what it lists."""
    if content:
        require(content.endswith(b"\n"), f"cut off: {content[-60:]!r}")


def cpuinfo_text(data: bytes) -> None:
    """`cpuinfo` of any host: no paragraph of a CPU that is hidden."""
    content = attempt(cpuinfo.render, data, SEEN, allowed=ValueError)
    if content is not None:
        require(len(content) <= len(data) + 64 * data.count(b"\n\n") + 64, "more than the host has")
        again = cpuinfo.render(content, SEEN)
        require(again == content, "not the same when it is cut again")


def stat_text(data: bytes) -> None:
    """`stat` of any host: the lines of the visible CPUs and of no other."""
    content = attempt(stat.render, data, LEDGER, SEEN, 1, 0, allowed=ValueError)
    if content is None:
        return
    keys = [line.partition(b" ")[0] for line in content.split(b"\n")]
    shown = [key for key in keys if key.startswith(b"cpu") and key[3:].isdigit()]
    require(shown == [b"cpu0", b"cpu2"], shown)


def meminfo_text(data: bytes) -> None:
    """`meminfo` of any host: never more than the limit."""
    host = attempt(meminfo.parse, data, allowed=ValueError)
    if host is None:
        return
    size_name(host.huge_page_kb)
    content = meminfo.render(host, _MEMORY, Missing.ABSENT, 50)
    _check_whole(content)
    require(content.count(b"\n") <= len(data.splitlines()), "more lines than the host has")
    for line in content.splitlines():
        if line.startswith(b"MemTotal:"):
            require(int(line.split()[1]) <= LIMIT_BYTES >> 10, line)


def small_texts(data: bytes) -> None:
    """`diskstats`, `swaps`, `slabinfo` and `pressure`."""
    disks = attempt(diskstats.render, data, _IO, allowed=ValueError)
    _check_whole(disks)
    if disks is not None:
        used = {tuple(line.split()[:2]) for line in disks.splitlines()}
        require(used <= {(b"8", b"0"), (b"259", b"3")}, used)
    content = swaps.render(data, SwapSpace(1 << 30, 1 << 20))
    require(len(content.splitlines()) == 2 or b"\r" in data, content)
    _check_whole(content)
    slabs = slabinfo.render(data)
    require(slabs.count(b"\n") == 2, "the host's caches")
    attempt(pressure.render, data, allowed=ValueError)


def sysfs_text(data: bytes) -> None:
    """Files below `sys/devices/system/cpu` of any content: no CPU that is hidden."""
    for name in SYSFS_FILES:
        content = attempt(cpu_sysfs.render, name, data, SEEN, allowed=ValueError)
        # What is not cut is the host's own, whatever it ends with.
        require(content == data or content is None or content.endswith(b"\n"), content)
    cpu_sysfs.is_hidden("cpufreq/policy1", SEEN, data)


_V2_FILES = (
    "memory.max", "memory.current", "memory.stat", "memory.swap.max", "memory.swap.current",
    "cpu.max", "cpu.stat", "cpuset.cpus.effective", "io.stat", "cgroup.procs", "cgroup.threads",
    "cpu.pressure",
)  # fmt: skip
_V1_FILES = (
    "memory/{c}/memory.limit_in_bytes", "memory/{c}/memory.usage_in_bytes",
    "memory/{c}/memory.stat", "memory/{c}/memory.memsw.limit_in_bytes",
    "memory/{c}/memory.memsw.usage_in_bytes", "cpu/{c}/cpu.cfs_quota_us",
    "cpu/{c}/cpu.cfs_period_us", "cpu/{c}/cpu.stat", "cpuset/{c}/cpuset.cpus",
    "cpuacct/{c}/cpuacct.stat", "cpuacct/{c}/cpuacct.usage_percpu",
    "cpuacct/{c}/cpuacct.usage_all", "blkio/{c}/blkio.throttle.io_serviced",
    "blkio/{c}/blkio.throttle.io_service_bytes", "memory/{c}/cgroup.procs",
)  # fmt: skip


class _Host:
    """A host whose container's files are written anew for each input."""

    def __init__(
        self, root: Path, names: tuple[str, ...], mounts: str, container: Container
    ) -> None:
        self._root = root / "sys/fs/cgroup"
        self._files = [self._root / name.format(c="c") for name in names]
        self._container = container
        stat_of_host = b"cpu  1 2 3 4 5 6 7 8 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\nbtime 1\n"
        write_tree(
            root,
            {
                "proc/meminfo": MEMINFO,
                "proc/stat": stat_of_host.decode(),
                "proc/cpuinfo": "".join(f"processor\t: {n}\n\n" for n in range(4)),
                "proc/swaps": "Filename Type Size Used Priority\n",
                "proc/diskstats": "   8       0 sda 1 2 3 4 5 6 7 8 9 10 11\n",
                "proc/uptime": "1000.00 2000.00\n",
                "proc/loadavg": "5.00 5.00 5.00 9/999 12345\n",
                "proc/slabinfo": "slabinfo - version: 2.1\n# name <objs>\nsecret 1 2\n",
                "sys/devices/system/cpu/online": "0-3\n",
                "sys/fs/cgroup/cgroup.controllers": CONTROLLERS,
            },
        )
        for file in self._files:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"")
        self._hierarchies = discover(mounts_below(root, mounts))
        self._host = HostFiles(f"{root}/proc", f"{root}/sys")
        self.names = names

    def render_all(self, contents: list[bytes]) -> None:
        for file, content in zip(self._files, contents, strict=True):
            # In place: a file that is made anew would be another one to whoever has it open.
            file.write_bytes(content)
        observatory = Observatory(self._hierarchies, self._host, None)
        try:
            require(bool(observatory.visible_cpus(self._container)), "no CPU")
            for view in VIEWS.values():
                self._render(observatory, view)
        finally:
            observatory.close()

    def _render(self, observatory: Observatory, view: View) -> None:
        try:
            content = observatory.render(view, self._container)
        except OSError:
            require(view.errors_reach_reader, f"{view.name} has failed")
            return
        if not view.errors_reach_reader:
            _check_whole(content)
            require(bool(content) or view.name == "diskstats", f"{view.name} is empty")


@cache
def _v2() -> _Host:
    container = container_of_paths({"": CgroupPath("/c")})
    assert container is not None
    return _Host(folder() / "v2", tuple(f"c/{name}" for name in _V2_FILES), V2_MOUNT, container)


@cache
def _v1() -> _Host:
    controllers = sorted({name.partition("/")[0] for name in _V1_FILES})
    container = container_of_paths(dict.fromkeys(controllers, CgroupPath("/c")))
    assert container is not None
    lines = [mount_line(f"/sys/fs/cgroup/{name}", "cgroup", name) for name in controllers]
    return _Host(folder() / "v1", _V1_FILES, "".join(lines), container)


def cgroup_v2(data: bytes) -> None:
    """Every view of a container whose v2 files say anything: whole files, and no error."""
    _v2().render_all(parts(data, len(_V2_FILES)))


def cgroup_v1(data: bytes) -> None:
    """The same for v1."""
    _v1().render_all(parts(data, len(_V1_FILES)))
