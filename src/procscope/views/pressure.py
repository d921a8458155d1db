"""`/proc/pressure/*`: a container's own `*.pressure` has the same format, psi_show()'s.

The kernel source is `kernel/sched/psi.c`.
"""

from __future__ import annotations

_KINDS = frozenset({b"some", b"full"})


def render(cgroup_pressure: bytes) -> bytes:
    """Return the container's pressure file as it is.

    Raises ValueError where it is empty or has a line that is neither `some` nor `full`.
    """
    lines = cgroup_pressure.splitlines()
    if not lines or any(line.partition(b" ")[0] not in _KINDS for line in lines):
        raise ValueError(f"not a pressure file: {cgroup_pressure[:80]!r}")
    return cgroup_pressure
