"""When a worker takes requests: where those before it are stuck, or have too many waiting.

One worker that keeps up serves alone. It answers sooner than two would, since what it looks at
stays in its CPU's caches, and what it remembers of a thousand containers is in memory once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from procscope.daemon.slots import WorkerSlots

_MANY: Final = 12
"""Requests that one worker has read and not begun. Whose turn comes after so many of others has
waited for longer than it takes to wake another worker."""


class Relief:
    """What one worker sees of those before it; implements `procscope.fuse.standin.Relief`."""

    def __init__(self, before: Sequence[WorkerSlots]) -> None:
        self._before = before
        self._begun_ns: list[int] = []

    def look(self) -> None:
        """What they begin from now on is what counts for `is_due`."""
        self._begun_ns = [slots.begun_ns() for slots in self._before]

    def is_due(self) -> bool:
        """Tell whether none of them has begun a request since `look`, or many wait in each."""
        return self.is_stuck() or all(slots.waiting() >= _MANY for slots in self._before)

    def is_stuck(self) -> bool:
        """Tell whether none of them has begun a request since `look`."""
        return [slots.begun_ns() for slots in self._before] == self._begun_ns

    def may_rest_long(self) -> bool:
        """Tell whether one of them follows a reader: it is seen to work, and best left alone.

        Who wakes up on another CPU than theirs has the scheduler put the reader there.
        """
        return any(slots.following() is not None for slots in self._before)
