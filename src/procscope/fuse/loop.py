"""The request loop: reads what waits, answers one of each group in turn, until the mount is gone.

Any number of processes may run it on the same descriptor, which does not block: each waits in an
epoll of its own with EPOLLEXCLUSIVE, so that a request wakes exactly one of them.

How much a loop takes. Before each round of answers it reads what has arrived, `_MOST_AT_ONCE`
requests at most, and only then decides whose turn it is. Less would leave a request unseen behind
the many of another group in the kernel's queue, which is first come, first served. More would let
one loop empty that queue while another finds nothing to do, and would make the next answer wait for
the classification of all of them.

A round is one request of each group that waits, of `_MOST_IN_A_ROUND` groups at most. Its replies
are written together: each one wakes a reader, and to wake a CPU that sleeps takes as long as to
make a reply. Who comes meanwhile waits for the rest of the round.

Who serves. A request wakes the first process that waits, and while that one works, the next. All
but the first stand in for it (`procscope.fuse.standin`).

While it works, and while nothing comes, a loop calls its sweep every five seconds, as long as that
says that there is something to look after: what was kept for those who have gone is given up also
if nobody ever asks again.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from struct import Struct
from typing import Final, Protocol

from procscope.fuse import opcodes, replies, wire
from procscope.fuse.negotiation import MAX_WRITE_BYTES
from procscope.fuse.replies import Reply
from procscope.fuse.standin import Relief, StandIn
from procscope.fuse.turns import Turns
from procscope.fuse.waiting import Waiter
from procscope.ids import Pid

REQUEST_BUFFER_BYTES: Final = max(wire.FUSE_MIN_READ_BUFFER, MAX_WRITE_BYTES + 4096) * 2
"""The kernel refuses to read into less than half of this. Requests that need more than all of it,
such as setting a large extended attribute, it refuses itself."""

_MOST_AT_ONCE: Final = 16
_MOST_IN_A_ROUND: Final = 8
_MOST_HELD_NS: Final = 100_000
"""A reply is not held back for longer than this and the one request that is being answered."""
SWEEP_EVERY_S: Final = 5.0
_NS_PER_S: Final = 1_000_000_000

_AGAIN: Final = frozenset({errno.EINTR, errno.ENOENT})
"""A request was interrupted between waking and reading."""
_GONE: Final = frozenset({errno.ENODEV, errno.ECONNABORTED})
"""Unmounted, or aborted through /sys/fs/fuse/connections."""

_WITHOUT_REPLY: Final = frozenset({opcodes.FUSE_FORGET, opcodes.FUSE_BATCH_FORGET})
_NOBODY_WAITS: Final = frozenset({opcodes.FUSE_RELEASE, opcodes.FUSE_RELEASEDIR})
_unpack_length: Final = Struct("=I").unpack_from
_unpack_opcode: Final = Struct("=4xI").unpack_from
_unpack_pid: Final = Struct("=32xI").unpack_from
_NO_LENGTH: Final = bytes(4)
_log = logging.getLogger(__name__)


class RequestHandler(Protocol):
    """What `Session` and `Tracer` have in common."""

    def handle(self, request: memoryview, /) -> Reply:
        """The reply to one request, None where none is due."""


class RequestSlots(Protocol):
    """Where requests are read to; it may be memory that a successor of this process sees.

    While a buffer holds a request that is not answered yet its first four bytes, the request's
    length, are not 0.
    """

    @property
    def buffers(self) -> Sequence[memoryview]:
        """Each at least REQUEST_BUFFER_BYTES."""
        ...

    def prepare(self, index: int) -> None:
        """A request is about to be read into buffer `index`."""
        ...

    def begin(self, index: int) -> int:
        """The request in buffer `index` is being answered. Returns the monotonic time, in ns."""
        ...

    def end(self, index: int) -> None:
        """It is answered: the buffer's first four bytes become 0."""
        ...

    def queued(self, count: int) -> None:
        """So many requests have been read and wait for their turn."""
        ...


class PrivateSlots:
    """Buffers that nobody else sees."""

    def __init__(self, count: int = 1) -> None:
        self.buffers = [memoryview(bytearray(REQUEST_BUFFER_BYTES)) for _ in range(count)]

    def prepare(self, index: int) -> None:
        """See `RequestSlots.prepare`."""

    def begin(self, index: int) -> int:
        """See `RequestSlots.begin`."""
        del index
        return time.monotonic_ns()

    def end(self, index: int) -> None:
        """See `RequestSlots.end`."""
        self.buffers[index][:4] = _NO_LENGTH

    def queued(self, count: int) -> None:
        """See `RequestSlots.queued`."""


def _ignore(unique: int) -> None:
    """Do nothing with a request whose answer was not wanted."""


class Responder:
    """Answers requests that are in slots.

    `on_unwanted` is called with the `unique` of a request that the kernel did not know any more.
    """

    def __init__(
        self,
        fd: int,
        handler: RequestHandler,
        slots: RequestSlots,
        *,
        on_unwanted: Callable[[int], None] = _ignore,
    ) -> None:
        self.fd = fd
        self.slots = slots
        self._handle = handler.handle
        self._on_unwanted = on_unwanted

    def answer(self, index: int, handler: RequestHandler | None = None) -> int:
        """Answer the request in slot `index`, by another handler if one is given.

        Then mark the slot empty. Returns when that was begun, in monotonic nanoseconds.
        """
        begun_ns = self.slots.begin(index)
        request = self.slots.buffers[index]
        (size,) = _unpack_length(request)
        self._send(index, (handler.handle if handler else self._handle)(request[:size]))
        return begun_ns

    def answer_together(self, indexes: Sequence[int]) -> int:
        """Answer the requests in these slots in their order, and write what may wait together.

        A process that dies meanwhile leaves more than one request that it has made a reply to: all
        of them are still in their slots. Returns when the last was begun, in monotonic nanoseconds.
        """
        held: list[tuple[int, Reply]] = []
        since_ns = begun_ns = 0
        for index in indexes:
            begun_ns = self.slots.begin(index)
            if held and begun_ns - since_ns > _MOST_HELD_NS:
                self._send_all(held)
                held.clear()
            if not held:
                since_ns = begun_ns
            request = self.slots.buffers[index]
            (size,) = _unpack_length(request)
            held.append((index, self._handle(request[:size])))
        self._send_all(held)
        return begun_ns

    def _send_all(self, held: Sequence[tuple[int, Reply]]) -> None:
        for index, reply in held:
            self._send(index, reply)

    def _send(self, index: int, reply: Reply) -> None:
        """Write the reply to the request in slot `index`, which is empty then."""
        try:
            if isinstance(reply, bytes):
                os.write(self.fd, reply)
            elif reply is not None:
                os.writev(self.fd, reply)
        except OSError as error:
            self._not_taken(self.slots.buffers[index], error)
        self.slots.end(index)

    def _not_taken(self, request: memoryview, error: OSError) -> None:
        if error.errno == errno.ENOENT:
            self._on_unwanted(wire.fuse_in_header.unpack(request)["unique"])
        elif error.errno not in _GONE:
            self._send_failure(request, error)

    def _send_failure(self, request: memoryview, error: OSError) -> None:
        """The kernel did not take a reply: say EIO, or the caller would wait for ever."""
        header = wire.fuse_in_header.unpack(request)
        _log.error("the reply to opcode %d was refused: %s", header["opcode"], error.strerror)
        try:
            os.write(self.fd, replies.error(header["unique"], errno.EIO))
        except OSError as second:
            _log.debug("and so was EIO in its place: %s", second.strerror)


def _one_group(pid: Pid) -> Hashable:
    """Put all callers into one group."""
    del pid
    return None


def _nothing_kept() -> bool:
    return False


class RequestLoop:
    """Serves one descriptor. `group_of` says which callers take turns with which others.

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
                if not self._waiter.wait(self._patience_s):
                    self._sweep_if_due(time.monotonic_ns())
                elif self._stand_in is None or self._stand_in.is_needed():
                    self._serve_first()
                    self._serve_all()
            while self._turns or self._releases:
                self._answer_round()
        finally:
            self._device.close()
            self._waiter.close()

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
            self._answer(index)

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
        left = _MOST_AT_ONCE - 1
        following = self._receive()
        if following is None and not (self._turns or self._releases):
            self._answer(index)
            return True
        self._queue(index)
        while following is not None:
            self._queue(following)
            left -= 1
            following = self._receive() if left else None
        self._answer_round()
        return True

    def _queue(self, index: int) -> None:
        request = self._buffers[index]
        (opcode,) = _unpack_opcode(request)
        if opcode in _NOBODY_WAITS:
            self._releases.append(index)
        else:
            (pid,) = _unpack_pid(request)
            self._turns.add(self._group_of(pid) if pid else None, index)

    def _answer_round(self) -> None:
        """Answer one request of each group, and some that nobody waits for.

        As many closed files as other requests: there is never more than one for each OPEN, so
        that they do not pile up.
        """
        self._slots.queued(len(self._buffers) - len(self._free) - 1)
        indexes = self._turns.round(_MOST_IN_A_ROUND)
        releases = min(max(len(indexes), 1), len(self._releases))
        begun_ns = self._responder.answer_together(indexes)
        self._free += indexes
        if releases:
            indexes = [self._releases.popleft() for _ in range(releases)]
            begun_ns = self._responder.answer_together(indexes)
            self._free += indexes
        self._answered(begun_ns)

    def _answer(self, index: int) -> None:
        begun_ns = self._responder.answer(index)
        self._free.append(index)
        self._answered(begun_ns)

    def _answered(self, begun_ns: int) -> None:
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
                if error.errno not in _GONE:
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
