"""The request loop: reads what waits, answers one of each group in turn, until the mount is gone.

Any number of processes may run it on the same descriptor, which does not block: each waits in an
epoll of its own with EPOLLEXCLUSIVE, so that a request wakes exactly one of them.

How much a loop takes. Before each round of answers it reads what has arrived, `_MOST_AT_ONCE`
requests at most, and only then decides whose turn it is. Less would leave a request unseen behind
the many of another group in the kernel's queue, which is first come, first served. More would let
one loop empty that queue while another finds nothing to do, and would make the next answer wait for
the classification of all of them.

A round is one request of each group that waits, of `_MOST_IN_A_ROUND` groups at most; or all that
wait, where they are no more than so many. Its replies are written together: each one wakes a
reader, and to wake a CPU that sleeps takes as long as to make a reply. Who comes meanwhile waits
for the rest of the round.

Who serves. A request wakes the first process that waits, and while that one works, the next. All
but the first stand in for it (`procscope.fuse.standin`). The first one follows a reader that reads
on and on to its CPU (`procscope.fuse.following`).

While it works, and while nothing comes, a loop calls its sweep every five seconds, as long as that
says that there is something to look after: what was kept for those who have gone is given up also
if nobody ever asks again.
"""

from __future__ import annotations

import errno
import io
import os
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from struct import Struct
from typing import Final

from procscope.fuse import opcodes
from procscope.fuse.following import PATIENCE_S, Follower
from procscope.fuse.responder import GONE, PrivateSlots, RequestHandler, Responder
from procscope.fuse.standin import Relief, StandIn
from procscope.fuse.turns import Turns
from procscope.fuse.waiting import Waiter
from procscope.ids import Pid

_MOST_AT_ONCE: Final = 16
_MOST_IN_A_ROUND: Final = 8
SWEEP_EVERY_S: Final = 5.0
_NS_PER_S: Final = 1_000_000_000

_AGAIN: Final = frozenset({errno.EINTR, errno.ENOENT})
"""A request was interrupted between waking and reading."""
_WITHOUT_REPLY: Final = frozenset({opcodes.FUSE_FORGET, opcodes.FUSE_BATCH_FORGET})
_NOBODY_WAITS: Final = frozenset({opcodes.FUSE_RELEASE, opcodes.FUSE_RELEASEDIR})
_unpack_opcode: Final = Struct("=4xI").unpack_from
_unpack_pid: Final = Struct("=32xI").unpack_from


def _one_group(pid: Pid) -> Hashable:
    """Put all callers into one group."""
    del pid
    return None


def _nothing_kept() -> bool:
    return False


class RequestLoop:
    """Serves one descriptor. `group_of` says which callers take turns with which others.

    With `one_by_one` a request is looked at when the replies to those of its group before it are
    written: where the kernel caches, READ and GETATTR of one file must not be answered at once.

    `sweep` tells whether it has to be called again though no request comes. With `relief` the loop
    serves only where that is due.
    """

    def __init__(
        self,
        responder: Responder,
        *,
        group_of: Callable[[Pid], Hashable] = _one_group,
        sweep: Callable[[], bool] = _nothing_kept,
        sweep_every_s: float = SWEEP_EVERY_S,
        relief: Relief | None = None,
        follower: Follower | None = None,
        one_by_one: bool = False,
    ) -> None:
        os.set_blocking(responder.fd, False)
        self._device = io.FileIO(responder.fd, "r", closefd=False)
        self._waiter = Waiter(responder.fd)
        self._responder = responder
        self._slots = responder.slots
        self._buffers = responder.slots.buffers
        self._prepared = 0
        """How many of the buffers have been read into."""
        self._group_of = group_of
        self._free = list(reversed(range(len(self._buffers))))
        self._turns: Turns[int] = Turns()
        self._releases: deque[int] = deque()
        self._stand_in = None if relief is None else StandIn(self._waiter, relief)
        self._stopping = False
        self._gone = False
        self._sweep = sweep
        self._sweep_every_s = sweep_every_s
        self._next_sweep_ns = time.monotonic_ns() + int(sweep_every_s * _NS_PER_S)
        self._patience_s: float | None = None
        """How long to wait for a request; without end where there is nothing to sweep."""
        self._follower = follower
        self._most_regardless = 0 if one_by_one else _MOST_IN_A_ROUND
        """How many are answered at once, whosever they are."""
        self._slots.queued(0)

    @property
    def wakeup_fd(self) -> int:
        """For `signal.set_wakeup_fd`: no signal is missed just before the loop begins to wait."""
        return self._waiter.wakeup_fd

    def run(self) -> None:
        """Serve until the mount is gone or `stop` is called; then answer what was taken."""
        try:
            if self._stand_in is None:
                self._serve_all()
            while not (self._stopping or self._gone):
                if not self._wait():
                    self._sweep_if_due(time.monotonic_ns())
                elif self._stand_in is not None and not self._stand_in.is_needed():
                    self._sweep_beside_others()
                else:
                    self._serve_first()
                    self._serve_all()
            while self._turns or self._releases:
                self._answer_round()
        finally:
            if self._follower is not None:
                self._follower.pause()
            self._device.close()
            self._waiter.close()

    def _sweep_beside_others(self) -> None:
        """Look after what is left of the last requests, though others take all that come."""
        if self._patience_s is not None:
            self._sweep_if_due(time.monotonic_ns())

    def _wait(self) -> bool:
        """Wait for a request; tell whether there is one."""
        follower = self._follower
        if follower is None or not follower.is_following:
            return self._waiter.wait(self._patience_s)
        if self._waiter.wait(PATIENCE_S):
            return True
        follower.pause()
        return False

    def stop(self) -> None:
        """End `run` after the requests that it has taken. For a signal handler."""
        self._stopping = True
        self._waiter.wake()

    def _sweep_if_due(self, now_ns: int) -> None:
        if now_ns >= self._next_sweep_ns:
            self._next_sweep_ns = now_ns + int(self._sweep_every_s * _NS_PER_S)
            self._patience_s = self._sweep_every_s if self._sweep() else None

    def _serve_first(self) -> None:
        """Answer what has ended the wait: it is nearly always alone, whoever it is of."""
        index = None if self._stopping else self._receive()
        if self._stand_in is not None:
            self._stand_in.found(any_there=index is not None)
        if index is not None:
            (pid,) = _unpack_pid(self._buffers[index])
            last_ns = self._slots.begun_ns()
            self._answer(index)
            if self._follower is not None:
                begun_ns = self._slots.begun_ns()
                self._follower.woken(pid, begun_ns, begun_ns - last_ns)

    def _serve_all(self) -> None:
        while not self._stopping and self._serve_turn():
            pass

    def _serve_turn(self) -> bool:
        """Take what has arrived, and answer a round of it; False where there is nothing."""
        index = self._receive()
        if index is None:
            if not (self._turns or self._releases):
                return False
            self._answer_round()
            return True
        following = self._receive()
        if following is None:
            if not (self._turns or self._releases):
                self._answer(index)
                return True
            self._answer_some_of([index])
            return True
        arrived = [index, following]
        self._receive_more(arrived)
        self._answer_some_of(arrived)
        return True

    def _receive_more(self, arrived: list[int]) -> None:
        """Read what else has arrived. As `_receive`, without a call for each: many are felt."""
        free, buffers, readinto = self._free, self._buffers, self._device.readinto
        for _ in range(_MOST_AT_ONCE - len(arrived)):
            if not free or free[-1] >= self._prepared:
                following = self._receive()
                if following is None:
                    return
                arrived.append(following)
                continue
            buffer = buffers[free[-1]]
            try:
                size = readinto(buffer)
            except OSError:
                # It comes again, if it is not for this one request.
                return
            if not size:
                return
            (opcode,) = _unpack_opcode(buffer)
            index = free.pop()
            if opcode in _WITHOUT_REPLY:
                self._answer(index)
            else:
                arrived.append(index)

    def _answer_some_of(self, arrived: Sequence[int]) -> None:
        """Answer a round of what has just arrived and what waited before."""
        waited_for: list[int] = []
        for index in arrived:
            (opcode,) = _unpack_opcode(self._buffers[index])
            (self._releases if opcode in _NOBODY_WAITS else waited_for).append(index)
        if self._follower is not None and self._follower.is_following:
            self._tell_follower(waited_for)
        if waited_for and not self._turns and len(waited_for) <= self._most_regardless:
            # All of them in this round: whose they are makes no difference.
            self._slots.queued(len(self._buffers) - len(self._free) - 1)
            self._answer_together(waited_for)
            self._answer_closed(len(waited_for))
            return
        for index in waited_for:
            (pid,) = _unpack_pid(self._buffers[index])
            self._turns.add(self._group_of(pid) if pid else None, index)
        self._answer_round()

    def _tell_follower(self, indexes: Sequence[int]) -> None:
        for index in indexes:
            (pid,) = _unpack_pid(self._buffers[index])
            if self._follower is not None:
                self._follower.meet(pid, self._slots.begun_ns())

    def _answer_round(self) -> None:
        """Answer one request of each group, and some that nobody waits for.

        As many closed files as other requests: there is never more than one for each OPEN, so
        that they do not pile up.
        """
        self._slots.queued(len(self._buffers) - len(self._free) - 1)
        if len(self._turns) > 1:
            indexes = self._turns.round(_MOST_IN_A_ROUND)
            self._answer_together(indexes)
            self._answer_closed(len(indexes))
            return
        if self._turns:
            self._answer(self._turns.next())
        if self._releases:
            self._answer(self._releases.popleft())

    def _answer_closed(self, most: int) -> None:
        closed = [self._releases.popleft() for _ in range(min(most, len(self._releases)))]
        if closed:
            self._answer_together(closed)

    def _answer_together(self, indexes: Sequence[int]) -> None:
        begun_ns = self._responder.answer_together(indexes)
        self._free += indexes
        self._patience_s = self._sweep_every_s
        if begun_ns >= self._next_sweep_ns:
            self._sweep_if_due(begun_ns)

    def _answer(self, index: int) -> None:
        begun_ns = self._responder.answer(index)
        self._free.append(index)
        self._patience_s = self._sweep_every_s
        if begun_ns >= self._next_sweep_ns:
            self._sweep_if_due(begun_ns)

    def _receive(self) -> int | None:
        """Read a request, and return its slot; None where none waits or no slot is free."""
        while self._free and not self._gone:
            index = self._free[-1]
            if index >= self._prepared:
                self._slots.prepare(index)
                self._prepared = index + 1
            buffer = self._buffers[index]
            try:
                size = self._device.readinto(buffer)
            except OSError as error:
                if error.errno in _AGAIN:
                    continue
                if error.errno not in GONE:
                    raise
                size = 0
            if size is None:
                return None
            if not size:
                # 0 comes from what is no /dev/fuse, at its end.
                self._gone = True
                return None
            self._free.pop()
            (opcode,) = _unpack_opcode(buffer)
            if opcode not in _WITHOUT_REPLY:
                return index
            self._answer(index)
        return None


def serve(fd: int, handler: RequestHandler) -> None:
    """Answer requests until the mount is gone."""
    RequestLoop(Responder(fd, handler, PrivateSlots())).run()
