"""Standing in for those who serve the same descriptor: taking only what they leave.

What two processes serve by turns both have to know, each with its caches cold. So all but the first
stand in for it. One that is woken rests for a few milliseconds, in which it waits for nothing, and
is needed only where those before it have begun nothing meanwhile, or cannot keep up. Each time that
it is not needed it rests twice as long. Behind its rest it waits as the last of all, so that a
request wakes it only where no other one waits.
"""

from __future__ import annotations

from typing import Final, Protocol

from procscope.fuse.waiting import Waiter

_LEAST_REST_S: Final = 0.001
_MOST_REST_S: Final = 0.008
"""How long requests wait at most where the process that was awake has been stopped since."""
_LONG_REST_S: Final = 0.064
"""And where it had one reader alone, that read on and on."""
_SURELY_S: Final = 0.005
"""How long a request waits until this process makes what it answers with, for the first time: on a
busy host one that works may not run for a few milliseconds."""
_TIMES_SWAMPED: Final = 10


class Relief(Protocol):
    """Tells whether those that serve before need to be relieved."""

    def look(self) -> None:
        """What they do from now on is what counts for `is_due`."""
        ...

    def is_due(self) -> bool:
        """Whether none of them has begun a request since `look`, or none of them keeps up."""
        ...

    def is_stuck(self) -> bool:
        """Whether none of them has begun a request since `look`."""
        ...

    def may_rest_long(self) -> bool:
        """Whether waking up disturbs what they do."""
        ...


class StandIn:
    """Decides for one process, each time that its waiter says that something is there."""

    def __init__(self, waiter: Waiter, relief: Relief) -> None:
        self._waiter = waiter
        self._relief = relief
        self._relieves = False
        self._rest_s = _LEAST_REST_S

    def is_needed(self) -> bool:
        """Leave what waits to those before, for a moment; tell whether they have not taken it."""
        if self._relieves and self._relief.is_due():
            return True
        self._relief.look()
        self._waiter.rest(self._rest_s)
        self._relieves = self._relief.is_due()
        if not self._relieves:
            self._rest_longer()
        return self._relieves

    def found(self, *, any_there: bool) -> None:
        """Note whether there was a request when this process was needed."""
        if any_there:
            self._rest_s = _LEAST_REST_S
        else:
            self._relieves = False
            self._rest_longer()

    def _rest_longer(self) -> None:
        most_s = _LONG_REST_S if self._relief.may_rest_long() else _MOST_REST_S
        self._rest_s = min(2 * self._rest_s, most_s)


def wait_until_needed(fd: int, relief: Relief | None) -> None:
    """Wait for the first request on `fd` that this process has to answer, and leave it there.

    Until then it needs nothing to answer with. Without a `relief` that is the first of all.
    """
    waiter = Waiter(fd)
    try:
        if relief is None:
            waiter.wait()
            return
        stand_in = StandIn(waiter, relief)
        while not (waiter.wait() and stand_in.is_needed() and _is_left(waiter, relief)):
            stand_in.found(any_there=False)
    finally:
        waiter.close()


def _is_left(waiter: Waiter, relief: Relief) -> bool:
    """Tell whether others do not take what is there: it may have come just now.

    Where they only have too much to do, that has to last: many containers may have been started.
    """
    relief.look()
    waiter.rest(_SURELY_S)
    if waiter.wait(0) and relief.is_stuck():
        return True
    for _ in range(_TIMES_SWAMPED):
        if not (waiter.wait(0) and relief.is_due()):
            return False
        waiter.rest(_SURELY_S)
    return waiter.wait(0)
