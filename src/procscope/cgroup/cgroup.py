"""One container, put together from whichever hierarchy has each controller."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Mapping
from typing import Literal

from procscope.cgroup.files import CgroupFiles, CgroupGone, Clock, FileBudget
from procscope.cgroup.hierarchy import Hierarchies
from procscope.cgroup.kept import Kept
from procscope.cgroup.lineage import Lineage
from procscope.cgroup.model import (
    CpuShare,
    CpuUsage,
    DeviceNumber,
    Hugetlb,
    IoCounters,
    Memory,
    MemoryLimit,
    MemoryStat,
    Missing,
)
from procscope.cgroup.tasks import iterate_tasks
from procscope.cgroup.v1 import (
    CpuQuotaV1,
    CpusetV1,
    CpuUsageV1,
    HugetlbV1,
    IoV1,
    MemoryV1,
    default_user_hz,
)
from procscope.cgroup.v2 import CpuQuotaV2, CpusetV2, CpuUsageV2, HugetlbV2, IoV2, MemoryV2
from procscope.ids import CgroupPath, ContainerKey, Pid
from procscope.linux.procfs import UNIFIED

Resource = Literal["cpu", "io", "memory"]

_NO_MEMORY = Memory(
    limit=MemoryLimit(limit_bytes=Missing.UNLIMITED, usage_bytes=0),
    stat=MemoryStat(),
    swap=Missing.ABSENT,
)

_HOME_PREFERENCE = ("memory", "pids", "cpu", "cpuacct", "blkio", "cpuset", "freezer", "devices")
"""Which v1 hierarchy stands for the container. v2 comes next: on a hybrid host a v1 runtime may
leave the container in its own service's v2 cgroup."""


class CgroupTasks:
    """The tasks of one container, and the CPU time that they use.

    Every method raises CgroupGone once the cgroup was removed. The owner then calls `close`.
    """

    __slots__ = ("_files", "_hierarchies", "_home", "_home_version", "_paths", "_unified", "_usage")

    def __init__(
        self,
        hierarchies: Hierarchies,
        paths: Mapping[str, CgroupPath],
        budget: FileBudget,
        *,
        clock: Clock = time.monotonic,
        user_hz: int | None = None,
    ) -> None:
        """`paths`: the container's path for each controller, v2's under `UNIFIED`.

        Raises CgroupGone where no hierarchy has a cgroup of these paths below its root.
        """
        self._hierarchies = hierarchies
        self._paths = paths
        self._files = CgroupFiles(budget, clock)
        self._unified = self._lineage(UNIFIED)
        self._home, self._home_version = self._choose_home()
        self._usage = self._usage_controller(user_hz or default_user_hz())

    def cpu_time_ns(self) -> int | None:
        """Return the CPU time used by all in the cgroup; None where nothing counts it."""
        return None if self._usage is None else self._usage.total_ns()

    def cpu_time_mark(self) -> int | None:
        """Return a number that is another one once CPU time was used; None as `cpu_time_ns`.

        Nothing is parsed for it: the same text tells the same time.
        """
        text = Missing.ABSENT if self._usage is None else self._usage.total_text()
        return None if isinstance(text, Missing) else hash(text)

    def processes(self, limit: int | None = None) -> Iterator[Pid]:
        """Yield the processes of the cgroup and everything below it, at most `limit`."""
        return iterate_tasks(self._home.own, "cgroup.procs", limit)

    def threads(self, limit: int | None = None) -> Iterator[Pid]:
        """Yield the threads of the cgroup and everything below it, at most `limit`."""
        name = "tasks" if self._home_version == 1 else "cgroup.threads"
        return iterate_tasks(self._home.own, name, limit)

    def exists(self) -> bool:
        """Whether the cgroup is still there, and not another one of the same path."""
        return self._home.own.exists()

    def identity(self) -> ContainerKey:
        """Return a text that no other cgroup has or gets until the host is booted anew."""
        own = self._home.own
        return ContainerKey(f"{own.device:x}-{own.inode:x}")

    def close(self) -> None:
        """Close all files. A later call opens again what it needs."""
        self._files.close()

    def _lineage(self, controller: str) -> Lineage | None:
        """The container's cgroup in the hierarchy of `controller`; None where it has none."""
        version = self._hierarchies.version(controller)
        path = self._paths.get(controller if version == 1 else UNIFIED)
        if version is None or path is None:
            return None
        directories = self._hierarchies.lineage(controller, path)
        if not directories:
            return None
        try:
            own, *ancestors = map(self._files.directory, directories)
        except CgroupGone:
            return None
        return Lineage(own=own, ancestors=tuple(ancestors))

    def _on_v1(self, controller: str) -> bool:
        return self._hierarchies.version(controller) == 1

    def _choose_home(self) -> tuple[Lineage, Literal[1, 2]]:
        for controller in _HOME_PREFERENCE:
            if self._on_v1(controller) and (lineage := self._lineage(controller)):
                return lineage, 1
        if self._unified is not None:
            return self._unified, 2
        for controller in sorted(self._hierarchies.v1):
            if lineage := self._lineage(controller):
                return lineage, 1
        raise CgroupGone(self._paths.get("memory") or self._paths.get(UNIFIED) or "/")

    def _usage_controller(self, user_hz: int) -> CpuUsageV1 | CpuUsageV2 | None:
        """v1's cpuacct tells CPUs apart; without it v2 counts, also where no controller is on."""
        lineage = self._lineage("cpuacct")
        if lineage is not None:
            return CpuUsageV1(lineage, user_hz)
        return None if self._unified is None else CpuUsageV2(self._unified)


class Cgroup(CgroupTasks):
    """The numbers of one container, from files that stay open between calls.

    A controller is taken from the container's own cgroup only. Where the container is in a
    hierarchy's root, what that counts is the host's, so the controller is treated as missing.
    But for CgroupGone and those of `pressure` no method raises an error: what cannot be read is
    the model's `Missing` member, or 0.
    """

    __slots__ = ("_budget", "_clock", "_cpuset", "_hugetlb", "_io", "_memory", "_quota")

    def __init__(
        self,
        hierarchies: Hierarchies,
        paths: Mapping[str, CgroupPath],
        budget: FileBudget,
        *,
        clock: Clock = time.monotonic,
        user_hz: int | None = None,
    ) -> None:
        """See `CgroupTasks`."""
        super().__init__(hierarchies, paths, budget, clock=clock, user_hz=user_hz)
        self._budget = budget
        self._clock = clock
        self._memory = self._memory_controller()
        self._quota = self._quota_controller()
        self._cpuset = self._cpuset_controller()
        self._io = self._io_controller()
        self._hugetlb = self._hugetlb_controller()

    def kept(self) -> Kept[bytes]:
        """Return where a text is kept that is made of what is read here."""
        return Kept(self._files.trace, self._budget, self._clock)

    def kept_share(self) -> Kept[CpuShare]:
        """Return where `cpu_share` is kept."""
        return Kept(self._files.trace, self._budget, self._clock)

    def kept_usage(self) -> Kept[CpuUsage]:
        """Return where `cpu_usage` is kept."""
        return Kept(self._files.trace, self._budget, self._clock)

    def spoil(self) -> None:
        """What is being made is not to be kept: it has an input that is not read here."""
        self._files.trace.spoil()

    def memory(self, *, with_swap: bool = True) -> Memory:
        """Return limit, statistics and swap as they are now; without it, swap is ABSENT."""
        return self._memory.memory(with_swap=with_swap) if self._memory else _NO_MEMORY

    def cpu_share(self) -> CpuShare:
        """Return the effective cpuset and the smallest quota as they are now."""
        return CpuShare(
            cpuset=self._cpuset.cpus() if self._cpuset else Missing.ABSENT,
            quota=self._quota.quota() if self._quota else Missing.UNLIMITED,
        )

    def cpu_usage(self, *, of_each_cpu: bool = False) -> CpuUsage:
        """Return the CPU time used and withheld since the cgroup was made.

        That of each CPU is two files more, and not told unless it is wanted.
        """
        throttled_ns = self._quota.throttled_ns() if self._quota else 0
        if self._usage is None:
            return CpuUsage(0, 0, 0, throttled_ns, None)
        return self._usage.usage(throttled_ns, of_each_cpu=of_each_cpu)

    def io(self) -> Mapping[DeviceNumber, IoCounters]:
        """Return the counters of the devices that the container has used."""
        return self._io.counters() if self._io else {}

    def hugetlb(self, page_size_name: str) -> Hugetlb | Literal[Missing.ABSENT]:
        """Return limit and usage of huge pages of one size, named as the kernel does (`2MB`)."""
        return self._hugetlb.hugetlb(page_size_name) if self._hugetlb else Missing.ABSENT

    def pressure(self, resource: Resource) -> bytes:
        """Return the container's own `RESOURCE.pressure`, v2 only, as the kernel writes it.

        Raises OSError: ENOENT where the container has no v2 cgroup of its own or the kernel has
        no pressure files, EOPNOTSUPP where the kernel has switched PSI off.
        """
        name = f"{resource}.pressure"
        if self._unified is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return self._unified.own.read_or_raise(name)

    def _memory_controller(self) -> MemoryV1 | MemoryV2 | None:
        lineage = self._lineage("memory")
        if lineage is None:
            return None
        return MemoryV1(lineage) if self._on_v1("memory") else MemoryV2(lineage)

    def _quota_controller(self) -> CpuQuotaV1 | CpuQuotaV2 | None:
        lineage = self._lineage("cpu")
        if lineage is None:
            return None
        return CpuQuotaV1(lineage) if self._on_v1("cpu") else CpuQuotaV2(lineage)

    def _cpuset_controller(self) -> CpusetV1 | CpusetV2 | None:
        lineage = self._lineage("cpuset")
        if lineage is None:
            return None
        return CpusetV1(lineage) if self._on_v1("cpuset") else CpusetV2(lineage)

    def _io_controller(self) -> IoV1 | IoV2 | None:
        if self._on_v1("blkio"):
            lineage = self._lineage("blkio")
            return None if lineage is None else IoV1(lineage)
        lineage = self._lineage("io")
        return None if lineage is None else IoV2(lineage)

    def _hugetlb_controller(self) -> HugetlbV1 | HugetlbV2 | None:
        lineage = self._lineage("hugetlb")
        if lineage is None:
            return None
        return HugetlbV1(lineage) if self._on_v1("hugetlb") else HugetlbV2(lineage)
