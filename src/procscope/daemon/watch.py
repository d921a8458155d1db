"""Finds workers that do not answer: requests in their slots, and no answer for too long.

Costs the workers nothing: the supervisor looks at their slots, five times a second while a request
waits. While none does it need not look before one could be overdue: the slots tell when it was
begun as well.
"""

from __future__ import annotations

import math

from procscope.daemon.slots import WorkerSlots

LOOK_EVERY_S = 0.2
IDLE_LOOK_EVERY_S = 2.0
_NS_PER_S = 1_000_000_000


class DeadlineWatch:
    """Watches the slots of one worker."""

    def __init__(self, slots: WorkerSlots, deadline_s: float) -> None:
        self.slots = slots
        self._deadline_s = deadline_s
        self._doing: tuple[int, int | None] | None = None
        self._since_s = 0.0
        self._looked_at_s = math.inf

    def start_over(self) -> None:
        """Give a new worker the whole deadline for what its predecessor has left."""
        self._doing = None
        self._looked_at_s = math.inf

    def next_look_s(self) -> float:
        """Return how soon to look again so that a deadline is not missed by much."""
        if self._doing is not None:
            return LOOK_EVERY_S
        return min(IDLE_LOOK_EVERY_S, self._deadline_s)

    def count_kill(self) -> None:
        """The worker was killed by somebody else: no request is to blame."""
        self.slots.count_kill()

    def overdue(self, now_s: float) -> bool:
        """Tell whether requests wait, and none was answered for longer than the deadline.

        That is so of a worker that hangs in one request, and of one that was stopped between two.
        `now_s` is monotonic. Calls are expected after each `next_look_s`: of requests that are not
        begun yet, the first look that finds them counts as their arrival.
        """
        doing = (self.slots.begun_ns(), self.slots.current())
        if not self.slots.pending():
            self._doing, self._since_s = None, now_s
        elif doing != self._doing:
            self._doing, self._since_s = doing, self._begun_s(now_s)
        self._looked_at_s = now_s
        return now_s - self._since_s > self._deadline_s

    def _begun_s(self, now_s: float) -> float:
        """Return when the worker began what it is doing, if that was since the last look."""
        begun_s = self.slots.begun_ns() / _NS_PER_S
        is_since = self.slots.current() is not None and self._looked_at_s <= begun_s <= now_s
        return begun_s if is_since else now_s
