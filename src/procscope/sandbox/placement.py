"""Which CPUs a sandbox gets that asked for an amount of CPU time, not for certain CPUs.

With a quota alone sched_getaffinity(2) tells of every CPU of the host, and programs that size their
threads by it (nproc, Go, musl, OpenMP) see another machine than those that read files. So the
sandbox gets as many CPUs as its quota needs, those that the fewest other sandboxes have.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable

from procscope.ids import CpuId
from procscope.linux.cpulist import parse_cpulist
from procscope.sandbox import cgroupfs
from procscope.units import CPU_PERIOD_USEC

_EFFECTIVE = ("cpuset.cpus.effective", "cpuset.effective_cpus")
_OWN = "cpuset.cpus"


def choose_cpus(
    quota_usec: int, available: tuple[CpuId, ...], taken: Iterable[tuple[CpuId, ...]]
) -> tuple[CpuId, ...] | None:
    """Return the CPUs for a quota, sorted; None where it needs all of `available`.

    `taken` are the CPUs of the other sandboxes.
    """
    count = max(1, -(-quota_usec // CPU_PERIOD_USEC))
    if count >= len(available):
        return None
    users = Counter(cpu for cpus in taken for cpu in cpus)
    return tuple(sorted(sorted(available, key=lambda cpu: (users[cpu], cpu))[:count]))


def place(quota_usec: int, parent: str, name: str) -> tuple[CpuId, ...] | None:
    """Return the CPUs for the sandbox `name` in the cpuset cgroup `parent`; None: no choice made.

    A place is not a limit that was asked for: where the hierarchy cannot be read there is none.
    """
    try:
        available = next(
            parse_cpulist(cgroupfs.read(parent, file))
            for file in _EFFECTIVE
            if cgroupfs.exists(parent, file)
        )
        others = [entry.name for entry in os.scandir(parent) if entry.is_dir()]
    except (OSError, StopIteration, ValueError):
        return None
    taken = [_cpus_of(os.path.join(parent, other)) for other in others if other != name]
    return choose_cpus(quota_usec, available, (cpus for cpus in taken if cpus != available))


def _cpus_of(directory: str) -> tuple[CpuId, ...]:
    try:
        return parse_cpulist(cgroupfs.read(directory, _OWN))
    except (OSError, ValueError):
        return ()
