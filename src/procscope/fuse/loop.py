"""The request loop: one blocking read, one answer, one write, until the mount is gone.

Any number of processes may run it on the same descriptor: readers of /dev/fuse wait exclusively,
so that a request wakes exactly one of them (fuse_dev_do_read() in fs/fuse/dev.c).
"""

from __future__ import annotations

import errno
import logging
import os
from typing import Final, Protocol

from procscope.fuse import replies, wire
from procscope.fuse.negotiation import MAX_WRITE_BYTES
from procscope.fuse.replies import Reply

REQUEST_BUFFER_BYTES: Final = max(wire.FUSE_MIN_READ_BUFFER, MAX_WRITE_BYTES + 4096) * 2
"""The kernel refuses to read into less than half of this. Requests that need more than all of it,
such as setting a large extended attribute, it refuses itself."""

_AGAIN: Final = frozenset({errno.EINTR, errno.ENOENT, errno.EAGAIN})
"""A request was interrupted or taken by another process between waking and reading."""
_GONE: Final = frozenset({errno.ENODEV, errno.ECONNABORTED})
"""Unmounted, or aborted through /sys/fs/fuse/connections."""

_HEADER_BYTES: Final = wire.fuse_in_header.size
_NO_LENGTH: Final = bytes(4)
_log = logging.getLogger(__name__)


class RequestHandler(Protocol):
    """What `Session` and `Tracer` have in common."""

    def handle(self, request: memoryview, /) -> Reply:
        """The reply to one request, None where none is due."""


class _Stopped(BaseException):
    """Raised by `RequestLoop.stop` to leave a blocking read."""


class RequestLoop:
    """Serves one descriptor from one buffer.

    `buffer` is where requests are read to, at least REQUEST_BUFFER_BYTES; it may be shared memory.
    While it holds a request that is not answered yet its first four bytes, the request's length,
    are not 0: a successor of this process can tell what is left to answer.
    """

    def __init__(
        self, fd: int, handler: RequestHandler, *, buffer: memoryview | None = None
    ) -> None:
        self._fd = fd
        self._handle = handler.handle
        self._buffer = memoryview(bytearray(REQUEST_BUFFER_BYTES)) if buffer is None else buffer
        self._waiting = False
        self._stopping = False

    def run(self) -> None:
        """Serve until the mount is gone or `stop` is called."""
        try:
            while not self._stopping:
                size = self.receive()
                if size is None:
                    return
                self.answer(size)
        except _Stopped:
            self.answer_left_over()

    def stop(self) -> None:
        """End `run` after the request that it works on. For a signal handler of the same thread."""
        self._stopping = True
        if self._waiting:
            self._waiting = False
            raise _Stopped

    def receive(self) -> int | None:
        """Wait for a request and return its size; None when the mount is gone or `stop` came."""
        self._waiting = True
        try:
            while not self._stopping:
                try:
                    # 0 comes from what is no /dev/fuse, at its end.
                    return os.readv(self._fd, (self._buffer,)) or None
                except OSError as error:
                    if error.errno in _GONE:
                        return None
                    if error.errno not in _AGAIN:
                        raise
            return None
        finally:
            self._waiting = False

    def answer(self, size: int) -> None:
        """Answer the request of `size` bytes that is in the buffer, and mark the buffer empty."""
        reply = self._handle(self._buffer[:size])
        if reply is not None:
            self._send(reply)
        self._buffer[:4] = _NO_LENGTH

    def answer_left_over(self) -> None:
        """Answer the request that is in the buffer, if there is one.

        A killed predecessor may have left it there; or a signal came between the read(2) and its
        result.
        """
        size = int(wire.fuse_in_header.unpack(self._buffer)["len"])
        if _HEADER_BYTES <= size <= len(self._buffer):
            self.answer(size)

    def _send(self, reply: bytes | replies.Buffers) -> None:
        try:
            if isinstance(reply, bytes):
                os.write(self._fd, reply)
            else:
                os.writev(self._fd, reply)
        except OSError as error:
            if error.errno == errno.ENOENT or error.errno in _GONE:
                return
            self._send_failure(error)

    def _send_failure(self, error: OSError) -> None:
        """The kernel did not take a reply: say EIO, or the caller would wait for ever."""
        header = wire.fuse_in_header.unpack(self._buffer)
        _log.error("the reply to opcode %d was refused: %s", header["opcode"], error.strerror)
        try:
            os.write(self._fd, replies.error(header["unique"], errno.EIO))
        except OSError as second:
            _log.debug("and so was EIO in its place: %s", second.strerror)


def serve(fd: int, session: RequestHandler, *, buffer: memoryview | None = None) -> None:
    """Answer requests until the mount is gone."""
    RequestLoop(fd, session, buffer=buffer).run()
