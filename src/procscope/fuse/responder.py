"""Answering requests that are in slots: one at a time, or several whose replies go out together."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Final, Protocol

from procscope.fuse import replies, wire
from procscope.fuse.negotiation import MAX_WRITE_BYTES
from procscope.fuse.replies import Reply

REQUEST_BUFFER_BYTES: Final = max(wire.FUSE_MIN_READ_BUFFER, MAX_WRITE_BYTES + 4096) * 2
"""The kernel refuses to read into less than half of this. Requests that need more than all of it,
such as setting a large extended attribute, it refuses itself."""

_MOST_HELD_NS: Final = 100_000
"""A reply is not held back for longer than this and the one request that is being answered."""
GONE: Final = frozenset({errno.ENODEV, errno.ECONNABORTED})
"""Unmounted, or aborted through /sys/fs/fuse/connections."""
_unpack_length: Final = Struct("=I").unpack_from
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

    def begun_ns(self) -> int:
        """Return when the last request was begun, on the monotonic clock."""
        ...


class PrivateSlots:
    """Buffers that nobody else sees."""

    def __init__(self, count: int = 1) -> None:
        self.buffers = [memoryview(bytearray(REQUEST_BUFFER_BYTES)) for _ in range(count)]
        self._begun_ns = 0

    def prepare(self, index: int) -> None:
        """See `RequestSlots.prepare`."""

    def begin(self, index: int) -> int:
        """See `RequestSlots.begin`."""
        del index
        self._begun_ns = time.monotonic_ns()
        return self._begun_ns

    def end(self, index: int) -> None:
        """See `RequestSlots.end`."""
        self.buffers[index][:4] = _NO_LENGTH

    def queued(self, count: int) -> None:
        """See `RequestSlots.queued`."""

    def begun_ns(self) -> int:
        """See `RequestSlots.begun_ns`."""
        return self._begun_ns


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
        reply = (handler.handle if handler else self._handle)(request[:size])
        # As `_send_all` does: this is the way of nearly all requests, and each call is felt.
        try:
            if isinstance(reply, bytes):
                os.write(self.fd, reply)
            elif reply is not None:
                os.writev(self.fd, reply)
        except OSError as error:
            self._not_taken(request, error)
        self.slots.end(index)
        return begun_ns

    def answer_together(self, indexes: Sequence[int]) -> int:
        """Answer the requests in these slots in their order, and write what may wait together.

        A process that dies meanwhile leaves more than one request that it has made a reply to: all
        of them are still in their slots. Returns when the last was begun, in monotonic nanoseconds.
        """
        held: list[tuple[int, Reply]] = []
        since_ns = begun_ns = 0
        begin, buffers, handle = self.slots.begin, self.slots.buffers, self._handle
        for index in indexes:
            begun_ns = begin(index)
            if not held:
                since_ns = begun_ns
            elif begun_ns - since_ns > _MOST_HELD_NS:
                self._send_all(held)
                held.clear()
                since_ns = begun_ns
            request = buffers[index]
            (size,) = _unpack_length(request)
            held.append((index, handle(request[:size])))
        self._send_all(held)
        return begun_ns

    def _send_all(self, held: Sequence[tuple[int, Reply]]) -> None:
        """Write each reply, and mark its request's slot empty."""
        fd, write, end = self.fd, os.write, self.slots.end
        for index, reply in held:
            try:
                if isinstance(reply, bytes):
                    write(fd, reply)
                elif reply is not None:
                    os.writev(fd, reply)
            except OSError as error:
                self._not_taken(self.slots.buffers[index], error)
            end(index)

    def _not_taken(self, request: memoryview, error: OSError) -> None:
        if error.errno == errno.ENOENT:
            self._on_unwanted(wire.fuse_in_header.unpack(request)["unique"])
        elif error.errno not in GONE:
            self._send_failure(request, error)

    def _send_failure(self, request: memoryview, error: OSError) -> None:
        """The kernel did not take a reply: say EIO, or the caller would wait for ever."""
        header = wire.fuse_in_header.unpack(request)
        _log.error("the reply to opcode %d was refused: %s", header["opcode"], error.strerror)
        try:
            os.write(self.fd, replies.error(header["unique"], errno.EIO))
        except OSError as second:
            _log.debug("and so was EIO in its place: %s", second.strerror)
