"""Which CPUs of the host a container sees."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from procscope.cgroup.model import CpuQuota, CpuShare, Missing
from procscope.ids import CpuId


class CpuCount(Enum):
    """What the number of visible CPUs follows."""

    QUOTA = "quota"
    """The cpuset, cut to the CPU quota rounded up to whole CPUs."""
    CPUSET = "cpuset"
    """The cpuset alone, as lxcfs does by default."""


def visible_cpus(share: CpuShare, online: Sequence[CpuId], count: CpuCount) -> tuple[CpuId, ...]:
    """Return the sorted ids of the CPUs that the container sees, at least one.

    They are the first of the cpuset that are online, under their physical ids, so that they stay
    valid for sched_setaffinity(2). Without a cpuset to read, or with one of which no CPU is
    online, all online CPUs stand in for it.

    Raises ValueError where `online` is empty.
    """
    if not online:
        raise ValueError("no CPU is online")
    cpus = sorted(online)
    if not isinstance(share.cpuset, Missing):
        allowed = frozenset(share.cpuset)
        cpus = [cpu for cpu in cpus if cpu in allowed] or cpus
    if count is CpuCount.QUOTA and isinstance(share.quota, CpuQuota):
        return tuple(cpus[: _whole_cpus(share.quota)])
    return tuple(cpus)


def _whole_cpus(quota: CpuQuota) -> int:
    """Return quota / period rounded up, at least 1."""
    return max(1, -(-quota.quota_usec // max(1, quota.period_usec)))
