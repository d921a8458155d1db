"""Proves the request loop on a pair of sockets that, as /dev/fuse, keep message boundaries."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

from procscope.fuse import wire
from procscope.fuse.loop import REQUEST_BUFFER_BYTES, RequestLoop, serve
from procscope.fuse.replies import Reply
from tests.unit.fuse.memory import (
    CONTENT,
    UNIQUE,
    errno_in,
    payload,
    read_request,
    request,
    session,
)

Pair = tuple[socket.socket, socket.socket]
WhenWaiting = Callable[[RequestLoop, Callable[[], None]], None]


class Answers:
    """A handler that is a function."""

    def __init__(self, handle: Callable[[memoryview], Reply]) -> None:
        self.handle = handle


@pytest.fixture
def pair() -> Iterator[Pair]:
    """(the kernel's end, the server's end)."""
    kernel, server = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with kernel, server:
        yield kernel, server


def test_requests_are_answered_in_order_until_the_end(pair: Pair) -> None:
    """FORGET in between takes no reply, and READ's two buffers are one message."""
    kernel, server = pair
    kernel.send(read_request(0, 4096))
    kernel.send(request(2, bytes(8)))
    kernel.send(read_request(len(CONTENT) - 5, 4096))
    kernel.shutdown(socket.SHUT_WR)
    serve(server.fileno(), session())
    assert payload(kernel.recv(65536)) == CONTENT
    assert payload(kernel.recv(65536)) == CONTENT[-5:]
    server.close()
    assert kernel.recv(65536) == b""


def test_the_buffer_tells_whether_a_request_is_unanswered(pair: Pair) -> None:
    """Its length stands in the first four bytes while it is worked on, and 0 afterwards."""
    kernel, server = pair
    buffer = memoryview(bytearray(REQUEST_BUFFER_BYTES))
    lengths = []

    def handle(message: memoryview) -> Reply:
        lengths.append(wire.fuse_in_header.unpack(buffer)["len"])
        return session().handle(message)

    kernel.send(read_request(0, 10))
    kernel.shutdown(socket.SHUT_WR)
    serve(server.fileno(), Answers(handle), buffer=buffer)
    assert lengths == [80]
    assert bytes(buffer[:4]) == bytes(4)


def test_a_reply_that_is_not_taken_becomes_eio(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    """Here a message larger than the socket's buffer: its caller must not wait for ever."""
    kernel, server = pair
    replies: list[Reply] = [bytes(1 << 22), [bytes(16), bytes(1 << 22)]]
    for _ in range(2):
        kernel.send(request(1, b"file\0"))
    kernel.send(read_request(0, 10))
    kernel.shutdown(socket.SHUT_WR)

    def handle(message: memoryview) -> Reply:
        return replies.pop() if replies else session().handle(message)

    serve(server.fileno(), Answers(handle))
    for _ in range(2):
        reply = kernel.recv(65536)
        assert errno_in(reply) == errno.EIO
        assert wire.fuse_out_header.unpack(reply)["unique"] == UNIQUE
    assert payload(kernel.recv(65536)) == CONTENT[:10]
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


def test_a_reply_that_nobody_takes_does_not_end_the_loop(pair: Pair) -> None:
    """Neither it nor EIO in its place."""
    kernel, server = pair
    kernel.send(request(1, b"file\0"))
    kernel.shutdown(socket.SHUT_WR)
    server.shutdown(socket.SHUT_WR)
    serve(server.fileno(), session())


@pytest.mark.parametrize("end", [errno.ENODEV, errno.ECONNABORTED])
def test_reading_goes_on_until_the_mount_is_gone(monkeypatch: pytest.MonkeyPatch, end: int) -> None:
    """A request that was interrupted, or taken by another worker, is no end."""
    results = [errno.ENOENT, errno.EINTR, errno.EAGAIN, end]

    def readv(fd: int, buffers: object) -> int:
        raise OSError(results.pop(0), "injected")

    monkeypatch.setattr(os, "readv", readv)
    serve(-1, session())
    assert results == []


def test_a_descriptor_that_cannot_be_read_is_an_error() -> None:
    """Not a loop that runs hot."""
    with pytest.raises(OSError, match="Bad file descriptor"):
        serve(-1, session())


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV])
def test_a_reply_to_a_request_that_is_gone_is_dropped(
    pair: Pair,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    """Its caller was killed, or the mount is gone: nobody waits, and nothing is said."""
    kernel, server = pair
    written: list[bytes] = []

    def write(fd: int, data: bytes) -> int:
        written.append(data)
        raise OSError(number, "injected")

    kernel.send(request(1, b"file\0"))
    kernel.shutdown(socket.SHUT_WR)
    monkeypatch.setattr(os, "write", write)
    serve(server.fileno(), session())
    assert len(written) == 1
    assert caplog.records == []


def test_stop_while_working_ends_after_the_answer(pair: Pair) -> None:
    """The request that is worked on is answered, the next one left to others."""
    kernel, server = pair

    def handle(message: memoryview) -> Reply:
        loop.stop()
        return session().handle(message)

    loop = RequestLoop(server.fileno(), Answers(handle))
    kernel.send(read_request(0, 10))
    kernel.send(read_request(10, 10))
    loop.run()
    assert payload(kernel.recv(65536)) == CONTENT[:10]
    assert server.recv(65536) == bytes(read_request(10, 10))


def test_stop_before_run_serves_nothing(pair: Pair) -> None:
    """A signal that comes early is not lost."""
    kernel, server = pair
    kernel.send(read_request(0, 10))
    loop = RequestLoop(server.fileno(), session())
    loop.stop()
    loop.run()
    assert loop.receive() is None
    assert server.recv(65536) == bytes(read_request(0, 10))


@pytest.fixture
def when_waiting() -> Iterator[WhenWaiting]:
    """Call a function once from a signal handler, as soon as a loop waits for a request."""

    def arm(loop: RequestLoop, call: Callable[[], None]) -> None:
        def handler(number: int, frame: FrameType | None) -> None:
            if loop._waiting:
                signal.setitimer(signal.ITIMER_REAL, 0)
                call()

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)

    before = signal.getsignal(signal.SIGALRM)
    yield arm
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_stop_from_a_signal_handler_ends_a_blocking_read(
    pair: Pair, when_waiting: WhenWaiting
) -> None:
    """Nothing is ever sent: without `stop` this would not end."""
    loop = RequestLoop(pair[1].fileno(), session())
    when_waiting(loop, loop.stop)
    loop.run()


def test_a_request_that_came_together_with_the_signal_is_answered(
    pair: Pair, when_waiting: WhenWaiting
) -> None:
    """The read has filled the buffer, and the signal handler hides its result."""
    kernel, server = pair
    buffer = memoryview(bytearray(REQUEST_BUFFER_BYTES))
    loop = RequestLoop(server.fileno(), session(), buffer=buffer)

    def stop() -> None:
        message = read_request(0, 10)
        buffer[: len(message)] = message
        loop.stop()

    when_waiting(loop, stop)
    loop.run()
    assert payload(kernel.recv(65536)) == CONTENT[:10]
    assert bytes(buffer[:4]) == bytes(4)
