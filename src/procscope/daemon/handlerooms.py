"""Rooms: the slots of one size in one worker's part of the memory of open files' contents.

Only the worker whose part it is hands them out, so that no lock is needed.
"""

from __future__ import annotations

import time
from typing import Final

from procscope.daemon.handlelayout import FREE, IN_USE, STATE, Layout, first_word

_RECLAIM_EVERY_NS: Final = 5_000_000
"""A search that finds none free has looked at thousands of headers."""
_RECLAIMED_AT_ONCE: Final = 64
"""Of each size, the first ones of a part: slots that were never used take no memory."""


class Room:
    """Slots that are as large as each other. `free` are those that are known to be free."""

    __slots__ = ("_none_free_at_ns", "base", "free", "size_bytes", "slots")

    def __init__(self, slots: range, size_bytes: int, start: int) -> None:
        """`start` is where the content of the first slot begins.

        That of any begins at `base` + its number * `size_bytes`.
        """
        self.slots = slots
        self.size_bytes = size_bytes
        self.base = start - slots.start * size_bytes
        self.free: list[int] = []
        self._none_free_at_ns = -_RECLAIM_EVERY_NS

    def take(self, words: memoryview) -> int | None:
        """Return a slot that is free, by what `words`, all headers, say; None where there is none.

        It counts as taken from now on.
        """
        if not self.free:
            now_ns = time.monotonic_ns()
            if now_ns - self._none_free_at_ns > _RECLAIM_EVERY_NS:
                self._reclaim(words)
                if not self.free:
                    self._none_free_at_ns = now_ns
        return self.free.pop() if self.free else None

    def _reclaim(self, words: memoryview) -> None:
        """Find some slots that are free, or were released by other workers."""
        for slot in self.slots:
            word = first_word(slot)
            if words[word + STATE] != IN_USE:
                words[word + STATE] = FREE
                self.free.append(slot)
                if len(self.free) == _RECLAIMED_AT_ONCE:
                    break
        self.free.reverse()


def rooms_of(layout: Layout) -> list[list[Room]]:
    """Return the rooms of each part, the smallest slots first."""
    rooms: list[list[Room]] = []
    slot, start = 0, layout.first_start
    for _ in range(layout.parts):
        part: list[Room] = []
        for kind in layout.classes:
            slots = range(slot, slot + kind.per_worker)
            part.append(Room(slots, kind.size_bytes, start))
            slot, start = slots.stop, start + kind.per_worker * kind.size_bytes
        rooms.append(part)
    return rooms
