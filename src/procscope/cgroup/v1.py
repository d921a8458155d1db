"""The controllers of cgroup v1.

Files and fields: the kernel's `Documentation/admin-guide/cgroup-v1/`; `memcg1_stat_format()` in
`mm/memcontrol-v1.c`, `kernel/sched/cpuacct.c`, `cpu_cfs_stat_show()` in `kernel/sched/core.c`,
`blkg_prfill_rwstat()` in `block/blk-cgroup-rwstat.c`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

from procscope.cgroup.files import CgroupDirectory, Content
from procscope.cgroup.lineage import (
    Lineage,
    binding_index,
    binding_limit,
    read_amount,
    read_count,
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
    PerCpuTime,
    Swap,
    SwapV1,
    Unlimited,
)
from procscope.cgroup.parsers import (
    LARGEST_LIMIT,
    digits,
    make_quota,
    parse_blkio,
    parse_cpuset,
    parse_limit,
    parse_numbers,
    parse_usage_all,
)
from procscope.ids import CpuId
from procscope.values import frozen

_NS_PER_SECOND = 1_000_000_000


class MemoryV1:
    """`memory.*`."""

    def __init__(self, lineage: Lineage) -> None:
        """Raises CgroupGone."""
        self.lineage = lineage
        self._charged = _charged_cgroups(lineage)

    def memory(self, *, with_swap: bool = True) -> Memory:
        """Return all of it; without swap, that is ABSENT. Raises CgroupGone.

        `hierarchical_memory_limit` in `memory.stat` is the kernel's own smallest limit; where it
        is none, no ancestor needs to be asked. Who sets the limit it does not tell.
        """
        own = self.lineage.own
        stat = read_flat(own, "memory.stat")
        limited_above = stat.get("hierarchical_memory_limit", 0) < LARGEST_LIMIT
        limits: list[Limit] = [
            read_limit(directory, "memory.limit_in_bytes")
            for directory in (self._charged if limited_above else (own,))
        ]
        index = binding_index(limits)
        own_usage = read_count(own, "memory.usage_in_bytes")
        usage = read_count(self._charged[index], "memory.usage_in_bytes") if index else own_usage
        return Memory(
            limit=MemoryLimit(limit_bytes=limits[index], usage_bytes=usage),
            stat=_memory_stat(stat, kernel_bytes=read_count(own, "memory.kmem.usage_in_bytes")),
            swap=self._swap(stat, limits[index], own_usage) if with_swap else Missing.ABSENT,
        )

    def _swap(self, stat: Mapping[str, int], memory_limit: Limit, memory_usage: int) -> Swap:
        usage = read_amount(self.lineage.own, "memory.memsw.usage_in_bytes")
        if isinstance(usage, Missing):
            return usage
        return SwapV1(
            memsw_limit_bytes=self._memsw_limit(stat),
            memory_limit_bytes=memory_limit,
            memsw_usage_bytes=usage,
            memory_usage_bytes=memory_usage,
            swappiness=read_amount(self.lineage.own, "memory.swappiness"),
        )

    def _memsw_limit(self, stat: Mapping[str, int]) -> Limit:
        smallest = stat.get("hierarchical_memsw_limit")
        if smallest is not None:
            return Missing.UNLIMITED if smallest >= LARGEST_LIMIT else smallest
        return smallest_limit(
            [read_limit(directory, "memory.memsw.limit_in_bytes") for directory in self._charged]
        )


def _charged_cgroups(lineage: Lineage) -> tuple[CgroupDirectory, ...]:
    """Return the cgroup and those ancestors that its memory is charged to as well.

    Before kernel 5.11 (commit bef8620cd8e0) a parent with `memory.use_hierarchy` 0 was not
    charged for its children. The value cannot change while there are children, so that it is
    read once. Newer kernels always say 1; without the file all ancestors count.
    """
    charged = [lineage.own]
    for ancestor in lineage.ancestors:
        if read_amount(ancestor, "memory.use_hierarchy") == 0:
            break
        charged.append(ancestor)
    return tuple(charged)


def _memory_stat(stat: Mapping[str, int], kernel_bytes: int) -> MemoryStat:
    """`kernel_bytes`: all kernel memory that is charged. v1 does not tell its kinds apart."""
    return MemoryStat(
        anon_bytes=stat.get("total_rss", 0),
        file_bytes=stat.get("total_cache", 0),
        file_mapped_bytes=stat.get("total_mapped_file", 0),
        file_dirty_bytes=stat.get("total_dirty", 0),
        file_writeback_bytes=stat.get("total_writeback", 0),
        shmem_bytes=stat.get("total_shmem", 0),
        swapcached_bytes=stat.get("total_swapcached", 0),
        active_anon_bytes=stat.get("total_active_anon", 0),
        inactive_anon_bytes=stat.get("total_inactive_anon", 0),
        active_file_bytes=stat.get("total_active_file", 0),
        inactive_file_bytes=stat.get("total_inactive_file", 0),
        unevictable_bytes=stat.get("total_unevictable", 0),
        slab_unreclaimable_bytes=kernel_bytes,
        anon_thp_bytes=stat.get("total_rss_huge", 0),
    )


@frozen
class CpuQuotaV1:
    """`cpu.cfs_*` and `cpu.stat`."""

    lineage: Lineage

    def quota(self) -> CpuQuota | Unlimited:
        """Return the smallest quota over the cgroup and its ancestors. Raises CgroupGone."""
        return smallest_quota([_own_quota(directory) for directory in self.lineage.all])

    def throttled_ns(self) -> int:
        """Return the time, summed over CPUs, in which the cgroup had work but no quota left.

        `cpu.stat.local` (kernel 6.6, commit 677ea015f231) counts it for the cgroup itself,
        whoever set the quota. Older kernels count it in `cpu.stat` of the cgroup that sets the
        quota only; then only the container's own quota is known: an ancestor's figure is also
        its siblings'. Raises CgroupGone.
        """
        local = read_flat(self.lineage.own, "cpu.stat.local").get("throttled_time")
        if local is not None:
            return local
        return read_flat(self.lineage.own, "cpu.stat").get("throttled_time", 0)


def _own_quota(directory: CgroupDirectory) -> CpuQuota | Unlimited:
    quota_usec = read_value(directory, "cpu.cfs_quota_us", parse_limit)
    if isinstance(quota_usec, Missing):
        return Missing.UNLIMITED
    period_usec = read_count(directory, "cpu.cfs_period_us")
    try:
        return make_quota(quota_usec, period_usec)
    except ValueError:
        return Missing.UNLIMITED


@frozen
class CpusetV1:
    """`cpuset.effective_cpus`, which leaves out offline CPUs, or `cpuset.cpus`."""

    lineage: Lineage

    def cpus(self) -> tuple[CpuId, ...] | Literal[Missing.ABSENT, Missing.UNREADABLE]:
        """Return the CPUs. Raises CgroupGone.

        A cgroup whose CPUs nobody has set has none, and no task: its parent's are taken.
        """
        for directory in self.lineage.all:
            for name in ("cpuset.effective_cpus", "cpuset.cpus"):
                cpus = read_value(directory, name, parse_cpuset)
                if cpus is not Missing.ABSENT and cpus != ():
                    return cpus
        return Missing.ABSENT


@frozen
class CpuUsageV1:
    """`cpuacct.*`. Niced time is part of the user time there and cannot be told apart."""

    lineage: Lineage
    user_hz: int

    def usage(self, throttled_ns: int, *, of_each_cpu: bool) -> CpuUsage:
        """Return the CPU time used. Raises CgroupGone.

        Each CPU's user and system time are samples since kernel 5.17 (commit dd02d4234c9a): a
        task that runs at a tick is charged a whole one, which is far off for a group that sleeps
        and wakes with the tick, as one under a quota does. The sums in `cpuacct.stat` are
        corrected there by the time that really passed (`cpuacct_stats_show()`), so they are taken
        from it.
        """
        per_cpu = self._per_cpu() if of_each_cpu else None
        stat = read_flat(self.lineage.own, "cpuacct.stat")
        user_ns = stat.get("user", 0) * _NS_PER_SECOND // self.user_hz
        system_ns = stat.get("system", 0) * _NS_PER_SECOND // self.user_hz
        return CpuUsage(
            user_ns=user_ns,
            nice_ns=0,
            system_ns=system_ns,
            throttled_ns=throttled_ns,
            per_cpu=per_cpu or None,
        )

    def total_text(self) -> Content:
        """Return what tells all CPUs' time together, or why there is nothing. Raises CgroupGone."""
        return self.lineage.own.read("cpuacct.usage")

    def total_ns(self) -> int | None:
        """Return all CPUs' time together; None where it is not told. Raises CgroupGone."""
        text = self.lineage.own.read("cpuacct.usage")
        return None if isinstance(text, Missing) else digits(text.rstrip())

    def _per_cpu(self) -> Mapping[CpuId, PerCpuTime]:
        """The exact time in `cpuacct.usage_percpu`, and how the samples divide it.

        `usage_percpu*` have one number for each possible CPU, whose ids are taken to have no gaps.
        """
        exact = read_value(self.lineage.own, "cpuacct.usage_percpu", parse_numbers)
        usage = () if isinstance(exact, Missing) else exact
        return {
            cpu: PerCpuTime(
                user_ns, system_ns, usage[cpu] if cpu < len(usage) else user_ns + system_ns
            )
            for cpu, (user_ns, system_ns) in self._samples().items()
        }

    def _samples(self) -> Mapping[CpuId, tuple[int, int]]:
        """User and system time of each CPU; `cpuacct.usage_all` has it in one file, with ids."""
        own = self.lineage.own
        samples = read_value(own, "cpuacct.usage_all", parse_usage_all)
        if not isinstance(samples, Missing) and samples:
            return samples
        user = read_value(own, "cpuacct.usage_percpu_user", parse_numbers)
        system = read_value(own, "cpuacct.usage_percpu_sys", parse_numbers)
        if isinstance(user, Missing) or isinstance(system, Missing) or len(user) != len(system):
            return {}
        return {CpuId(cpu): times for cpu, times in enumerate(zip(user, system, strict=True))}


def default_user_hz() -> int:
    """Return the ticks per second that the kernel counts in for user space."""
    return os.sysconf("SC_CLK_TCK")


@frozen
class IoV1:
    """`blkio.throttle.io_serviced*` and `io_service_bytes*`.

    Since kernel 6.10 (commit a3166c51702b) they count nothing on a disk for which no throttle
    limit was ever set in any cgroup: such a disk is not in them.
    """

    lineage: Lineage

    def counters(self) -> Mapping[DeviceNumber, IoCounters]:
        """Return the devices that the cgroup has used. Raises CgroupGone."""
        operations = self._devices("blkio.throttle.io_serviced")
        sizes = self._devices("blkio.throttle.io_service_bytes")
        counters: dict[DeviceNumber, IoCounters] = {}
        for device in operations.keys() | sizes.keys():
            counts, size = operations.get(device, {}), sizes.get(device, {})
            of_device = IoCounters(
                read_bytes=size.get("Read", 0),
                write_bytes=size.get("Write", 0),
                discard_bytes=size.get("Discard", 0),
                reads=counts.get("Read", 0),
                writes=counts.get("Write", 0),
                discards=counts.get("Discard", 0),
            )
            if of_device != IoCounters():
                counters[device] = of_device
        return counters

    def _devices(self, name: str) -> Mapping[DeviceNumber, Mapping[str, int]]:
        """Old kernels have no `_recursive` of these: then what is below is not counted."""
        for file_name in (f"{name}_recursive", name):
            devices = read_value(self.lineage.own, file_name, parse_blkio)
            if not isinstance(devices, Missing):
                return devices
        return {}


@frozen
class HugetlbV1:
    """`hugetlb.SIZE.*`."""

    lineage: Lineage

    def hugetlb(self, page_size_name: str) -> Hugetlb | Literal[Missing.ABSENT]:
        """Return the numbers of one page size. Raises CgroupGone."""
        limit_name = f"hugetlb.{page_size_name}.limit_in_bytes"
        if isinstance(self.lineage.own.read(limit_name), Missing):
            return Missing.ABSENT
        limit, usage = binding_limit(
            self.lineage.all, limit_name, f"hugetlb.{page_size_name}.usage_in_bytes"
        )
        return Hugetlb(limit_bytes=limit, usage_bytes=usage)
