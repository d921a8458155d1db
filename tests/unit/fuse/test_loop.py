"""Proves the request loop on a pair of sockets that, as /dev/fuse, keep message boundaries."""

from __future__ import annotations

import errno
import io
import os
import signal
import socket
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import cast

import pytest

from procscope.fuse import opcodes, wire
from procscope.fuse.following import PATIENCE_S, Follower
from procscope.fuse.loop import RequestLoop, serve
from procscope.fuse.replies import Reply
from procscope.fuse.responder import PrivateSlots, RequestHandler, Responder
from procscope.fuse.waiting import Waiter
from procscope.ids import Pid
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


def loop_of(
    server: socket.socket,
    handler: RequestHandler | None = None,
    slots: PrivateSlots | None = None,
    group_of: Callable[[Pid], Hashable] = lambda pid: pid,
) -> RequestLoop:
    responder = Responder(server.fileno(), handler or session(), slots or PrivateSlots(8))
    return RequestLoop(responder, group_of=group_of)


def test_the_buffer_tells_whether_a_request_is_unanswered(pair: Pair) -> None:
    """Its length stands in the first four bytes while it is worked on, and 0 afterwards."""
    kernel, server = pair
    slots = PrivateSlots()
    (buffer,) = slots.buffers
    lengths = []

    def handle(message: memoryview) -> Reply:
        lengths.append(wire.fuse_in_header.unpack(buffer)["len"])
        return session().handle(message)

    kernel.send(read_request(0, 10))
    kernel.shutdown(socket.SHUT_WR)
    loop_of(server, Answers(handle), slots).run()
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
def test_reading_goes_on_until_the_mount_is_gone(pair: Pair, end: int) -> None:
    """A request that was interrupted, or taken by another worker, is no end."""
    results = [errno.ENOENT, errno.EINTR, end]

    class Device:
        def readinto(self, buffer: object) -> int:
            raise OSError(results.pop(0), "injected")

        def close(self) -> None:
            """Nothing is open."""

    loop = loop_of(pair[1])
    loop._device.close()
    loop._device = cast("io.FileIO", Device())
    loop.run()
    assert results == []


def test_a_descriptor_that_cannot_be_read_is_an_error() -> None:
    """Not a loop that runs hot."""
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(OSError, match="Bad file descriptor"):
        serve(writer, session())
    os.close(writer)


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


def send(kernel: socket.socket, unique: int, pid: int, *, opcode: int = 1) -> None:
    body = bytes(24) if opcode == opcodes.FUSE_RELEASE else b"file\0"
    kernel.send(request(opcode, body, unique=unique, pid=pid))


def answered(kernel: socket.socket, count: int) -> list[int]:
    return [wire.fuse_out_header.unpack(kernel.recv(65536))["unique"] for _ in range(count)]


def test_each_group_has_its_turn(pair: Pair) -> None:
    """However many requests of another one came before."""
    kernel, server = pair
    for unique in range(1, 10):
        send(kernel, unique, pid=1)
    send(kernel, 10, pid=2)
    kernel.shutdown(socket.SHUT_WR)
    loop_of(server, slots=PrivateSlots(16)).run()
    assert answered(kernel, 10) == [1, 10, *range(2, 10)]


def test_so_many_as_one_round_has_are_answered_as_they_came(pair: Pair) -> None:
    """Nobody asks whose they are: it makes no difference."""
    kernel, server = pair
    asked: list[Pid] = []
    for unique in range(1, 9):
        send(kernel, unique, pid=1 + unique % 2)
    kernel.shutdown(socket.SHUT_WR)
    loop_of(server, group_of=asked.append).run()
    assert answered(kernel, 8) == list(range(1, 9))
    assert asked == []


def test_who_comes_while_many_wait_has_a_turn_after_one_more_of_theirs(pair: Pair) -> None:
    kernel, server = pair
    for unique in range(1, 10):
        send(kernel, unique, pid=1)

    def handle(message: memoryview) -> Reply:
        if wire.fuse_in_header.unpack(message)["unique"] == 2:
            send(kernel, 99, pid=2)
            kernel.shutdown(socket.SHUT_WR)
        return session().handle(message)

    loop_of(server, Answers(handle), PrivateSlots(16)).run()
    assert answered(kernel, 10) == [1, 2, 3, 99, *range(4, 10)]


def test_files_that_are_closed_wait_for_nobodys_turn(pair: Pair) -> None:
    """RELEASE comes without a pid; as many of them are answered as of others in the round."""
    kernel, server = pair
    for unique in range(1, 4):
        send(kernel, unique, pid=0, opcode=opcodes.FUSE_RELEASE)
    for unique in range(4, 6):
        send(kernel, unique, pid=unique)
    kernel.shutdown(socket.SHUT_WR)
    loop_of(server).run()
    assert answered(kernel, 5) == [4, 5, 1, 2, 3]


def replies_before_each(
    pair: Pair, count: int, slots: PrivateSlots | None = None
) -> dict[int, list[int]]:
    """Send requests of so many groups; return whose replies had come when each was handled."""
    kernel, server = pair
    before: dict[int, list[int]] = {}
    come: list[int] = []

    def handle(message: memoryview) -> Reply:
        with suppress(BlockingIOError):
            while True:
                reply = kernel.recv(65536, socket.MSG_DONTWAIT)
                come.append(wire.fuse_out_header.unpack(reply)["unique"])
        before[wire.fuse_in_header.unpack(message)["unique"]] = list(come)
        return session().handle(message)

    for unique in range(1, count + 1):
        send(kernel, unique, pid=unique)
    kernel.shutdown(socket.SHUT_WR)
    loop_of(server, Answers(handle), slots or ClockedSlots(step_ns=1)).run()
    return before


class ClockedSlots(PrivateSlots):
    """On whose clock so many nanoseconds pass between two requests."""

    def __init__(self, step_ns: int) -> None:
        super().__init__(16)
        self._step_ns = step_ns
        self._begun_ns = time.monotonic_ns()

    def begin(self, index: int) -> int:
        del index
        self._begun_ns += self._step_ns
        return self._begun_ns


def test_replies_of_a_round_are_written_together(pair: Pair) -> None:
    """To up to eight groups; those of the next round come after them."""
    before = replies_before_each(pair, 10)
    assert all(before[unique] == [] for unique in range(1, 9))
    assert before[9] == before[10] == list(range(1, 9))


@pytest.mark.parametrize(("step_us", "together"), [(40, 3), (90, 2), (110, 1)])
def test_no_reply_is_held_back_for_long(pair: Pair, step_us: int, together: int) -> None:
    """After a tenth of a millisecond it is written, before the next request is answered."""
    before = replies_before_each(pair, 6, ClockedSlots(step_us * 1000))
    assert before == {n: list(range(1, (n - 1) // together * together + 1)) for n in range(1, 7)}


def test_who_dies_in_a_round_leaves_all_that_has_no_reply(pair: Pair) -> None:
    kernel, server = pair

    class Death(BaseException):
        """Ends the process, as a crash does."""

    def handle(message: memoryview) -> Reply:
        if wire.fuse_in_header.unpack(message)["unique"] == 3:
            raise Death
        return session().handle(message)

    for unique in range(1, 5):
        send(kernel, unique, pid=unique)
    slots = ClockedSlots(step_ns=1)
    with pytest.raises(Death):
        loop_of(server, Answers(handle), slots).run()
    left = [buffer for buffer in slots.buffers if bytes(buffer[:4]) != bytes(4)]
    assert {wire.fuse_in_header.unpack(buffer)["unique"] for buffer in left} == {1, 2, 3, 4}


def test_more_requests_than_slots_are_answered(pair: Pair) -> None:
    kernel, server = pair
    for unique in range(1, 30):
        send(kernel, unique, pid=unique % 3)
    kernel.shutdown(socket.SHUT_WR)
    loop_of(server, slots=PrivateSlots(3)).run()
    assert sorted(answered(kernel, 29)) == list(range(1, 30))


def test_one_request_alone_is_not_asked_whose_it_is(pair: Pair) -> None:
    kernel, server = pair
    asked: list[Pid] = []

    def handle(message: memoryview) -> Reply:
        if wire.fuse_in_header.unpack(message)["unique"] == 1:
            send(kernel, 2, pid=1)
        else:
            loop.stop()
        return session().handle(message)

    loop = loop_of(server, Answers(handle), group_of=asked.append)
    send(kernel, 1, pid=1)
    loop.run()
    assert answered(kernel, 2) == [1, 2]
    assert asked == []


def test_stop_while_working_ends_after_what_was_taken(pair: Pair) -> None:
    """What was read is answered, the next one left to others."""
    kernel, server = pair

    def handle(message: memoryview) -> Reply:
        loop.stop()
        kernel.send(read_request(10, 10))
        return session().handle(message)

    loop = loop_of(server, Answers(handle))
    send(kernel, 1, pid=1)
    send(kernel, 2, pid=1)
    loop.run()
    assert answered(kernel, 2) == [1, 2]
    assert server.recv(65536) == bytes(read_request(10, 10))


def test_stop_before_run_serves_nothing(pair: Pair) -> None:
    """A signal that comes early is not lost."""
    kernel, server = pair
    kernel.send(read_request(0, 10))
    loop = loop_of(server)
    loop.stop()
    loop.run()
    assert server.recv(65536) == bytes(read_request(0, 10))


def test_stop_from_a_signal_handler_ends_the_waiting(pair: Pair) -> None:
    """Nothing is ever sent: without `stop` this would not end."""
    before = signal.getsignal(signal.SIGALRM)
    loop = loop_of(pair[1])
    signal.signal(signal.SIGALRM, lambda *_: loop.stop())
    wakeup = signal.set_wakeup_fd(loop.wakeup_fd)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    try:
        loop.run()
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("seed", range(20))
def test_a_signal_at_any_moment_loses_no_request(pair: Pair, seed: int) -> None:
    """Each request is answered, or still with the kernel: never neither, never both."""
    kernel, server = pair
    loop = loop_of(server, slots=PrivateSlots(4))
    before = signal.getsignal(signal.SIGALRM)
    signal.signal(signal.SIGALRM, lambda *_: loop.stop())
    for unique in range(1, 60):
        send(kernel, unique, pid=unique % 4)
    signal.setitimer(signal.ITIMER_REAL, 0.00002 * (seed + 1))
    try:
        loop.run()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    kernel.setblocking(False)
    found = received(kernel, wire.fuse_out_header) + received(server, wire.fuse_in_header)
    assert sorted(found) == list(range(1, 60))


def test_a_loop_that_waits_sweeps_until_nothing_is_left(pair: Pair) -> None:
    """Then it waits without end: nobody wakes an idle host."""
    kernel, server = pair
    left = [True, True, False]
    timeouts: list[float | None] = []

    def sweep() -> bool:
        return left.pop(0)

    loop = RequestLoop(
        Responder(server.fileno(), session(), PrivateSlots()), sweep=sweep, sweep_every_s=0.001
    )
    wait = loop._waiter.wait

    def noted(timeout_s: float | None = None) -> bool:
        timeouts.append(timeout_s)
        if timeout_s is None and not left:
            loop.stop()
        return wait(timeout_s)

    loop._waiter.wait = noted  # type: ignore[method-assign]
    send(kernel, 1, pid=1)
    loop.run()
    assert left == []
    assert timeouts[-1] is None
    assert None not in timeouts[:-1]


def test_a_loop_that_has_answered_nothing_waits_without_end(pair: Pair) -> None:
    loop = RequestLoop(Responder(pair[1].fileno(), session(), PrivateSlots()), sweep_every_s=0.001)
    timeouts: list[float | None] = []

    def noted(timeout_s: float | None = None) -> bool:
        timeouts.append(timeout_s)
        loop.stop()
        return False

    loop._waiter.wait = noted  # type: ignore[method-assign]
    loop.run()
    assert timeouts == [None]


def test_a_loop_that_is_never_idle_sweeps_too(pair: Pair) -> None:
    kernel, server = pair
    swept = []

    def sweep() -> bool:
        swept.append(True)
        loop.stop()
        return True

    def handle(message: memoryview) -> Reply:
        send(kernel, 2, pid=1)
        return None

    responder = Responder(server.fileno(), Answers(handle), PrivateSlots(4))
    loop = RequestLoop(responder, sweep=sweep, sweep_every_s=0.001)
    send(kernel, 1, pid=1)
    loop.run()
    assert swept == [True]


class Others(Waiter):
    """Processes that serve the same descriptor: of each request it is said whether they take it.

    Also what a loop sees of them: those that take requests have begun another one before.
    """

    def __init__(self, fd: int, kernel: socket.socket, taken: list[bool]) -> None:
        super().__init__(fd)
        self._device = fd
        self._kernel = kernel
        self._script = list(taken)
        self._take = False
        self._begun = 0
        self._seen = 0
        self.rests_ms: list[float] = []

    def wait(self, timeout_s: float | None = None) -> bool:
        self._take = bool(self._script) and self._script.pop(0)
        if self._take:
            self._begun += 1
        if self._take or self._script:
            send(self._kernel, 1, 1)
        else:
            self._kernel.shutdown(socket.SHUT_WR)
        return super().wait(timeout_s)

    def rest(self, duration_s: float) -> None:
        self.rests_ms.append(duration_s * 1000)
        super().rest(duration_s)
        if self._take:
            os.read(self._device, 4096)
            self._begun += 1

    def look(self) -> None:
        self._seen = self._begun

    def is_due(self) -> bool:
        return self._begun == self._seen

    def is_stuck(self) -> bool:
        return self.is_due()

    def may_rest_long(self) -> bool:
        return False


def relieving(
    server: socket.socket, others: Others, monkeypatch: pytest.MonkeyPatch
) -> RequestLoop:
    monkeypatch.setattr("procscope.fuse.loop.Waiter", lambda _: others)
    responder = Responder(server.fileno(), session(), PrivateSlots(8))
    return RequestLoop(responder, relief=others)


def test_a_loop_that_relieves_leaves_requests_to_those_who_take_them(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It rests longer and longer, until there is one that they leave to it."""
    kernel, server = pair
    others = Others(server.fileno(), kernel, [True] * 5 + [False, True, False])
    relieving(server, others, monkeypatch).run()
    assert others.rests_ms == [1, 2, 4, 8, 8, 8, 1, 2]
    assert answered(kernel, 1) == [1]


def test_a_loop_that_relieves_serves_at_once_while_the_others_are_stuck(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have begun nothing since it last took their place: it waits for them no more."""
    kernel, server = pair
    others = Others(server.fileno(), kernel, [False] * 4)
    relieving(server, others, monkeypatch).run()
    assert others.rests_ms == [1]
    assert answered(kernel, 3) == [1] * 3


def test_what_it_has_kept_is_swept_while_others_take_every_request(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is woken again and again, and rests, and never waits for as long as a sweep takes."""
    kernel, server = pair
    others = Others(server.fileno(), kernel, [True, False] + [True] * 40 + [False])
    monkeypatch.setattr("procscope.fuse.loop.Waiter", lambda _: others)
    swept: list[int] = []

    def sweep() -> bool:
        swept.append(len(others.rests_ms))
        return len(swept) < 3

    responder = Responder(server.fileno(), session(), PrivateSlots(8))
    RequestLoop(responder, relief=others, sweep=sweep, sweep_every_s=0.02).run()
    assert len(swept) == 3
    assert 2 < swept[0] < swept[-1] < 42


def test_a_loop_that_relieves_takes_nothing_when_it_is_told_to_stop(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, server = pair
    others = Others(server.fileno(), kernel, [False] * 2)
    loop = relieving(server, others, monkeypatch)
    monkeypatch.setattr(others, "look", loop.stop)
    loop.run()
    assert server.recv(65536)


class NotedFollower(Follower):
    """Follows from the start, and notes what it is told."""

    def __init__(self, *, follows: bool = True) -> None:
        self.is_following = follows
        self.wakes: list[tuple[int, int, int]] = []
        self.met: list[tuple[int, int]] = []
        self.pauses = 0

    def woken(self, pid: Pid, now_ns: int, since_last_ns: int) -> None:
        self.wakes.append((pid, now_ns, since_last_ns))

    def meet(self, pid: Pid, now_ns: int) -> None:
        self.met.append((pid, now_ns))

    def pause(self) -> None:
        self.pauses += 1
        self.is_following = False


def following(
    server: socket.socket,
    follower: Follower,
    handler: RequestHandler | None = None,
    slots: PrivateSlots | None = None,
) -> RequestLoop:
    responder = Responder(server.fileno(), handler or session(), slots or PrivateSlots(8))
    return RequestLoop(responder, follower=follower)


def test_a_loop_that_follows_waits_for_a_moment_and_as_long_as_ever_then(pair: Pair) -> None:
    follower = NotedFollower()
    loop = following(pair[1], follower)
    waits: list[tuple[float | None, int]] = []

    def nothing_comes(timeout_s: float | None = None) -> bool:
        waits.append((timeout_s, follower.pauses))
        if timeout_s is None:
            loop.stop()
        return False

    loop._waiter.wait = nothing_comes  # type: ignore[method-assign]
    loop.run()
    assert waits == [(PATIENCE_S, 0), (None, 1)]


def test_a_follower_is_told_who_has_woken_the_loop_and_how_long_after_the_last_request(
    pair: Pair,
) -> None:
    """Of the requests that are there without a wait it is told nothing."""
    kernel, server = pair
    follower = NotedFollower(follows=False)
    slots = ClockedSlots(step_ns=70)
    began_ns = slots.begun_ns()
    loop = following(server, follower, slots=slots)
    wait, sent = loop._waiter.wait, [(7, 1), (8, 3), (0, 1)]

    def some_come(timeout_s: float | None = None) -> bool:
        if sent:
            pid, count = sent.pop(0)
            for unique in range(count):
                send(kernel, 1 + unique, pid=pid)
        else:
            kernel.shutdown(socket.SHUT_WR)
        return wait(timeout_s)

    loop._waiter.wait = some_come  # type: ignore[method-assign]
    loop.run()
    assert follower.wakes == [
        (7, began_ns + 70, 70),
        (8, began_ns + 140, 70),
        (0, began_ns + 350, 70),
    ]
    assert len(answered(kernel, 5)) == 5


@pytest.mark.parametrize("follows", [True, False])
def test_a_loop_that_follows_tells_whose_requests_wait_beside_others(
    pair: Pair, follows: bool
) -> None:
    """Not of closed files, which come from nobody."""
    kernel, server = pair

    def handle(message: memoryview) -> Reply:
        if wire.fuse_in_header.unpack(message)["unique"] == 1:
            for pid in (1, 2, 3):
                send(kernel, 1 + pid, pid=pid)
            send(kernel, 5, pid=0, opcode=opcodes.FUSE_RELEASE)
            kernel.shutdown(socket.SHUT_WR)
        return session().handle(message)

    follower = NotedFollower(follows=follows)
    slots = ClockedSlots(step_ns=70)
    send(kernel, 1, pid=1)
    following(server, follower, Answers(handle), slots).run()
    assert len(answered(kernel, 5)) == 5
    first_ns = slots.begun_ns() - 4 * 70
    assert follower.met == ([(pid, first_ns) for pid in (1, 2, 3)] if follows else [])


def test_however_a_loop_ends_it_follows_nobody_any_more(pair: Pair) -> None:
    class Death(BaseException):
        """Ends the process, as a crash does."""

    def handle(message: memoryview) -> Reply:
        raise Death

    kernel, server = pair
    follower = NotedFollower()
    send(kernel, 1, pid=1)
    with pytest.raises(Death):
        following(server, follower, Answers(handle)).run()
    assert not follower.is_following


def test_who_has_rested_waits_behind_the_others(pair: Pair) -> None:
    """The kernel wakes the first that waits: whoever has just rested gets what they leave."""
    kernel, server = pair
    with closing(Waiter(server.fileno())) as first, closing(Waiter(server.fileno())) as second:
        first.rest(0)
        woken: Queue[Waiter] = Queue()
        threads = [Thread(target=wait_once, args=(one, woken)) for one in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            wait_until_it_waits(thread)
        send(kernel, 1, pid=1)
        assert woken.get() is second
        first.wake()
        for thread in threads:
            thread.join()
        assert woken.empty()


def wait_once(waiter: Waiter, woken: Queue[Waiter]) -> None:
    if waiter.wait():
        woken.put(waiter)


def wait_until_it_waits(thread: Thread) -> None:
    """Until it is in epoll_wait(2)."""
    while "ep" not in Path(f"/proc/self/task/{thread.native_id}/wchan").read_text():
        time.sleep(0.001)


def test_a_loop_that_rests_ends_at_once_when_it_is_told_to(pair: Pair) -> None:
    waiter = Waiter(pair[1].fileno())
    with closing(waiter):
        waiter.wake()
        waiter.rest(3600)


def received(end: socket.socket, header: wire.Layout) -> list[int]:
    found = []
    with suppress(BlockingIOError):
        while True:
            found.append(header.unpack(end.recv(65536))["unique"])
    return found


def test_nothing_stays_open(pair: Pair) -> None:
    before = len(os.listdir("/proc/self/fd"))
    pair[0].shutdown(socket.SHUT_WR)
    loop_of(pair[1]).run()
    assert len(os.listdir("/proc/self/fd")) == before
