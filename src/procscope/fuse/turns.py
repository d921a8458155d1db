"""Whose request is answered next: one of each group in turn."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Turns(Generic[_T]):
    """A queue for each group, served round robin.

    Who waits at the head of a group waits for one request of each other group at most, however
    many these have. Within a group the order of arrival is kept.
    """

    def __init__(self) -> None:
        self._queues: OrderedDict[Hashable, deque[_T]] = OrderedDict()

    def __len__(self) -> int:
        """Return how many groups have something waiting."""
        return len(self._queues)

    def add(self, group: Hashable, item: _T) -> None:
        """Queue `item`; a group that has nothing waiting gets the last turn of this round."""
        queue = self._queues.get(group)
        if queue is None:
            queue = self._queues[group] = deque()
        queue.append(item)

    def round(self, most: int) -> list[_T]:
        """Return the next one of each group, of the `most` groups whose turn comes first."""
        return [self.next() for _ in range(min(len(self._queues), most))]

    def next(self) -> _T:
        """Return whose turn it is. Raises LookupError where nothing waits."""
        group = next(iter(self._queues), None)
        if group is None and not self._queues:
            raise LookupError("nothing waits")
        queue = self._queues[group]
        item = queue.popleft()
        if queue:
            self._queues.move_to_end(group)
        else:
            del self._queues[group]
        return item
