"""When a worker takes requests: where those before it are stuck, or have too many waiting.

One worker that keeps up serves alone. It answers sooner than two would, since what it looks at
stays in its CPU's caches, and what it remembers of a thousand containers is in memory once.

But for a reader that reads on and on while nothing else runs: as long as the CPUs that share a
cache are idle for much of the time, the scheduler puts a reader that is woken on another CPU than
who wakes it (`select_idle_cpu()` and `update_idle_cpu_scan()` in kernel/sched/fair.c, Linux 6.1),
and in a virtual machine each of the six hand-overs of a read wakes a CPU that is halted. With two
workers awake both CPUs are busy enough for reader and worker to stay on one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from procscope.daemon.slots import WorkerSlots

_MANY: Final = 12
"""Requests that one worker has read and not begun. Whose turn comes after so many of others has
waited for longer than it takes to wake another worker."""

_COMPANY_NS: Final = 10_000_000
"""How long a worker serves beside one that had to be woken for each request."""


class Relief:
    """What one worker sees of those before it; implements `procscope.fuse.standin.Relief`."""

    def __init__(self, before: Sequence[WorkerSlots]) -> None:
        self._before = before
        self._begun_ns: list[int] = []

    def look(self) -> None:
        """What they begin from now on is what counts for `is_due`."""
        self._begun_ns = [slots.begun_ns() for slots in self._before]

    def is_due(self) -> bool:
        """Tell whether none of them has begun a request since `look`, or many wait in each.

        Or whether company is wanted.
        """
        if self.is_wanted() or [slots.begun_ns() for slots in self._before] == self._begun_ns:
            return True
        return all(slots.waiting() >= _MANY for slots in self._before)

    def is_wanted(self) -> bool:
        """Tell whether each of them had to be woken for each request, not long ago."""
        since_ns = time.monotonic_ns() - _COMPANY_NS
        return all(slots.roused_ns() > since_ns for slots in self._before)
