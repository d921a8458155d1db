"""What the cgroup layer tells of a container: frozen data in base units, the same for v1 and v2.

Absent, unlimited, unreadable and zero are four different things. A plain `int` is a value (zero
included); the members of `Missing` are the other three.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Literal, NamedTuple

from procscope.ids import CpuId
from procscope.values import frozen


class Missing(Enum):
    """Why there is no number."""

    UNLIMITED = "unlimited"
    """The kernel says `max` (v2), or a value at or above what it can count (v1), or -1."""
    ABSENT = "absent"
    """This kernel, or this cgroup, has no such file or field."""
    UNREADABLE = "unreadable"
    """The file is there but could not be read, or held no number."""


Unlimited = Literal[Missing.UNLIMITED]
Limit = int | Unlimited
Amount = int | Literal[Missing.ABSENT, Missing.UNREADABLE]


@frozen
class MemoryLimit:
    """The limit that binds: the smallest over the cgroup and its ancestors."""

    limit_bytes: Limit
    usage_bytes: int
    """Usage of the cgroup that sets the limit; the container's own where none does."""


@frozen
class MemoryStat:
    """`memory.stat` of the container's own cgroup (v1: the `total_*` counters), by v2's names.

    What a kernel or version does not count is 0: nothing of it is known to be used.
    """

    anon_bytes: int = 0
    file_bytes: int = 0
    file_mapped_bytes: int = 0
    file_dirty_bytes: int = 0
    file_writeback_bytes: int = 0
    shmem_bytes: int = 0
    swapcached_bytes: int = 0
    active_anon_bytes: int = 0
    inactive_anon_bytes: int = 0
    active_file_bytes: int = 0
    inactive_file_bytes: int = 0
    unevictable_bytes: int = 0
    slab_reclaimable_bytes: int = 0
    slab_unreclaimable_bytes: int = 0
    kernel_stack_bytes: int = 0
    pagetables_bytes: int = 0
    sec_pagetables_bytes: int = 0
    percpu_bytes: int = 0
    vmalloc_bytes: int = 0
    anon_thp_bytes: int = 0
    shmem_thp_bytes: int = 0
    file_thp_bytes: int = 0
    zswap_bytes: int = 0
    zswapped_bytes: int = 0


@frozen
class SwapV2:
    """cgroup v2: swap has its own counter."""

    limit_bytes: Limit
    """Smallest `memory.swap.max` over the cgroup and its ancestors."""
    usage_bytes: int
    """`memory.swap.current` of the container's own cgroup."""


@frozen
class SwapV1:
    """cgroup v1: one counter for memory and swap together (`memory.memsw.*`)."""

    memsw_limit_bytes: Limit
    """Smallest `memory.memsw.limit_in_bytes` over the cgroup and its ancestors."""
    memory_limit_bytes: Limit
    """Smallest `memory.limit_in_bytes` over the same cgroups."""
    memsw_usage_bytes: int
    memory_usage_bytes: int
    swappiness: Amount


NoSwapAccounting = Literal[Missing.ABSENT, Missing.UNREADABLE]
Swap = SwapV1 | SwapV2 | NoSwapAccounting


@frozen
class Memory:
    """Everything the memory controller says of one container."""

    limit: MemoryLimit
    stat: MemoryStat
    swap: Swap


@frozen
class CpuQuota:
    """`cpu.max`, or `cpu.cfs_quota_us` and `cpu.cfs_period_us`."""

    quota_usec: int
    period_usec: int


@frozen
class CpuShare:
    """Which CPUs and how much of them, over the cgroup and its ancestors."""

    cpuset: tuple[CpuId, ...] | Literal[Missing.ABSENT, Missing.UNREADABLE]
    """Sorted effective cpuset."""
    quota: CpuQuota | Unlimited
    """The smallest quota / period."""


class PerCpuTime(NamedTuple):
    """CPU time on one CPU (v1 `cpuacct.usage_percpu`, and `_user` and `_sys`).

    `usage_ns` is exact. How it divides is known from samples at each tick on newer kernels, so
    that `user_ns` and `system_ns` do not add up to it.
    """

    user_ns: int
    system_ns: int
    usage_ns: int


@frozen
class CpuUsage:
    """CPU time since the cgroup was made. `user_ns` does not contain `nice_ns`."""

    user_ns: int
    nice_ns: int
    system_ns: int
    throttled_ns: int
    per_cpu: Mapping[CpuId, PerCpuTime] | None
    """None where the kernel does not count per CPU (v2)."""


DeviceNumber = tuple[int, int]
"""(major, minor)"""


@frozen
class IoCounters:
    """`io.stat` of one device; v1: `blkio.throttle.io_serviced` and `io_service_bytes`."""

    read_bytes: int = 0
    write_bytes: int = 0
    discard_bytes: int = 0
    reads: int = 0
    writes: int = 0
    discards: int = 0


@frozen
class Hugetlb:
    """The hugetlb controller's numbers for one page size."""

    limit_bytes: Limit
    usage_bytes: int


@frozen
class TaskCounts:
    """Threads of a container by state."""

    running: int
    """State R."""
    blocked: int
    """State D."""
    total: int
