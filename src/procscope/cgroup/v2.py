"""The controllers of cgroup v2.

Files and fields: the kernel's `Documentation/admin-guide/cgroup-v2.rst`; `memory_stats[]` in
`mm/memcontrol.c`, `cgroup_base_stat_cputime_show()` in `kernel/cgroup/rstat.c`,
`cpu_extra_stat_show()` in `kernel/sched/core.c`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from procscope.cgroup.files import Content
from procscope.cgroup.lineage import (
    Lineage,
    binding_limit,
    read_flat,
    read_limit,
    read_value,
    smallest_limit,
    smallest_quota,
)
from procscope.cgroup.model import (
    CpuQuota,
    CpuUsage,
    DeviceNumber,
    Hugetlb,
    IoCounters,
    Limit,
    Memory,
    MemoryLimit,
    MemoryStat,
    Missing,
    Swap,
    SwapV2,
    Unlimited,
)
from procscope.cgroup.parsers import (
    digits,
    parse_cpu_max,
    parse_cpuset,
    parse_io_stat,
    parse_number,
)
from procscope.ids import CpuId
from procscope.values import frozen

_NS_PER_USEC = 1000


@frozen
class MemoryV2:
    """`memory.*`. `memory.high` is no limit here: a container may live above it."""

    lineage: Lineage

    def memory(self, *, with_swap: bool = True) -> Memory:
        """Return all of it; without swap, that is ABSENT. Raises CgroupGone."""
        limit, usage = binding_limit(self.lineage.all, "memory.max", "memory.current")
        return Memory(
            limit=MemoryLimit(limit_bytes=limit, usage_bytes=usage),
            stat=_memory_stat(read_flat(self.lineage.own, "memory.stat")),
            swap=self._swap() if with_swap else Missing.ABSENT,
        )

    def _swap(self) -> Swap:
        usage = read_value(self.lineage.own, "memory.swap.current", parse_number)
        if isinstance(usage, Missing):
            return usage
        limits: list[Limit] = [
            read_limit(directory, "memory.swap.max") for directory in self.lineage.all
        ]
        return SwapV2(limit_bytes=smallest_limit(limits), usage_bytes=usage)


def _memory_stat(stat: Mapping[str, int]) -> MemoryStat:
    return MemoryStat(
        anon_bytes=stat.get("anon", 0),
        file_bytes=stat.get("file", 0),
        file_mapped_bytes=stat.get("file_mapped", 0),
        file_dirty_bytes=stat.get("file_dirty", 0),
        file_writeback_bytes=stat.get("file_writeback", 0),
        shmem_bytes=stat.get("shmem", 0),
        swapcached_bytes=stat.get("swapcached", 0),
        active_anon_bytes=stat.get("active_anon", 0),
        inactive_anon_bytes=stat.get("inactive_anon", 0),
        active_file_bytes=stat.get("active_file", 0),
        inactive_file_bytes=stat.get("inactive_file", 0),
        unevictable_bytes=stat.get("unevictable", 0),
        slab_reclaimable_bytes=stat.get("slab_reclaimable", 0),
        slab_unreclaimable_bytes=stat.get("slab_unreclaimable", 0),
        kernel_stack_bytes=stat.get("kernel_stack", 0),
        pagetables_bytes=stat.get("pagetables", 0),
        sec_pagetables_bytes=stat.get("sec_pagetables", 0),
        percpu_bytes=stat.get("percpu", 0),
        vmalloc_bytes=stat.get("vmalloc", 0),
        anon_thp_bytes=stat.get("anon_thp", 0),
        shmem_thp_bytes=stat.get("shmem_thp", 0),
        file_thp_bytes=stat.get("file_thp", 0),
        zswap_bytes=stat.get("zswap", 0),
        zswapped_bytes=stat.get("zswapped", 0),
    )


@frozen
class CpuQuotaV2:
    """`cpu.max`."""

    lineage: Lineage

    def quota(self) -> CpuQuota | Unlimited:
        """Return the smallest quota over the cgroup and its ancestors. Raises CgroupGone."""
        quotas: list[CpuQuota | Unlimited] = []
        for directory in self.lineage.all:
            quota = read_value(directory, "cpu.max", parse_cpu_max)
            quotas.append(Missing.UNLIMITED if isinstance(quota, Missing) else quota)
        return smallest_quota(quotas)

    def throttled_ns(self) -> int:
        """Return the time, summed over CPUs, in which the cgroup had work but no quota left.

        `cpu.stat.local` (kernel 6.6, commit 677ea015f231) counts it for the cgroup itself,
        whoever set the quota. Older kernels count it in `cpu.stat` of the cgroup that sets the
        quota only; then only the container's own quota is known: an ancestor's figure is also
        its siblings'. Raises CgroupGone.
        """
        local_usec = read_flat(self.lineage.own, "cpu.stat.local").get("throttled_usec")
        if local_usec is None:
            local_usec = read_flat(self.lineage.own, "cpu.stat").get("throttled_usec", 0)
        return local_usec * _NS_PER_USEC


@frozen
class CpusetV2:
    """`cpuset.cpus.effective`."""

    lineage: Lineage

    def cpus(self) -> tuple[CpuId, ...] | Literal[Missing.ABSENT, Missing.UNREADABLE]:
        """Return the CPUs of the nearest cgroup that has the controller. Raises CgroupGone."""
        for directory in self.lineage.all:
            cpus = read_value(directory, "cpuset.cpus.effective", parse_cpuset)
            if cpus is not Missing.ABSENT and cpus != ():
                return cpus
        return Missing.ABSENT


@frozen
class CpuUsageV2:
    """`cpu.stat`, which every cgroup has, whether the cpu controller is enabled or not."""

    lineage: Lineage

    def _stat(self) -> dict[str, int]:
        return read_flat(self.lineage.own, "cpu.stat")

    def total_text(self) -> Content:
        """Return what tells all CPUs' time together, or why there is nothing. Raises CgroupGone."""
        return self.lineage.own.read("cpu.stat")

    def total_ns(self) -> int | None:
        """Return all CPUs' time together; None where it is not told. Raises CgroupGone."""
        text = self.lineage.own.read("cpu.stat")
        if isinstance(text, Missing):
            return None
        # For this one number the text is not taken apart: it is asked for at each read.
        before, _, rest = text.partition(b"usage_usec ")
        usec = digits(rest.partition(b"\n")[0]) if before[-1:] in (b"", b"\n") else None
        return None if usec is None else usec * _NS_PER_USEC

    def usage(self, throttled_ns: int, *, of_each_cpu: bool) -> CpuUsage:
        """Return the CPU time used; v2 does not tell that of each CPU. Raises CgroupGone.

        `user_usec` holds the niced time too (`__cgroup_account_cputime_field()` counts it in
        both); kernels of 6.12 and later have `nice_usec`. The user time is scaled to the exact run
        time and the niced time is not, so that their difference could fall below 0.
        """
        del of_each_cpu
        stat = self._stat()
        user_usec = stat.get("user_usec", 0)
        nice_usec = min(stat.get("nice_usec", 0), user_usec)
        return CpuUsage(
            user_ns=(user_usec - nice_usec) * _NS_PER_USEC,
            nice_ns=nice_usec * _NS_PER_USEC,
            system_ns=stat.get("system_usec", 0) * _NS_PER_USEC,
            throttled_ns=throttled_ns,
            per_cpu=None,
        )


@frozen
class IoV2:
    """`io.stat`."""

    lineage: Lineage

    def counters(self) -> Mapping[DeviceNumber, IoCounters]:
        """Return the devices that the cgroup has used. Raises CgroupGone."""
        counters = read_value(self.lineage.own, "io.stat", parse_io_stat)
        return {} if isinstance(counters, Missing) else counters


@frozen
class HugetlbV2:
    """`hugetlb.SIZE.*`."""

    lineage: Lineage

    def hugetlb(self, page_size_name: str) -> Hugetlb | Literal[Missing.ABSENT]:
        """Return the numbers of one page size. Raises CgroupGone."""
        prefix = f"hugetlb.{page_size_name}"
        if isinstance(self.lineage.own.read(f"{prefix}.max"), Missing):
            return Missing.ABSENT
        limit, usage = binding_limit(self.lineage.all, f"{prefix}.max", f"{prefix}.current")
        return Hugetlb(limit_bytes=limit, usage_bytes=usage)
