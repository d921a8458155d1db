"""Finds workers that do not answer: the same request in the same slot for longer than the deadline.

Costs the workers nothing: the supervisor looks at their slots a few times a second.
"""

from __future__ import annotations

from procscope.daemon.slots import RequestSlot

LOOK_EVERY_S = 0.2


class DeadlineWatch:
    """Watches the slot of one worker."""

    def __init__(self, slot: RequestSlot, deadline_s: float) -> None:
        self._slot = slot
        self._deadline_s = deadline_s
        self._unique = 0
        self._since_s = 0.0

    def start_over(self) -> None:
        """Give a new worker the whole deadline for what its predecessor has left."""
        self._unique = 0

    def overdue(self, now_s: float) -> bool:
        """Tell whether the worker has been at one request for longer than the deadline.

        `now_s` is monotonic. Calls are expected every `LOOK_EVERY_S`: between two of them a
        request is taken to have arrived just after the first.
        """
        header = self._slot.pending()
        unique = 0 if header is None else header["unique"]
        if unique == 0 or unique != self._unique:
            self._unique, self._since_s = unique, now_s
            return False
        return now_s - self._since_s > self._deadline_s
