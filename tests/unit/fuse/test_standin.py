"""Proves what a process that stands in for others takes, on a pair of sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from procscope.fuse.standin import StandIn, wait_until_needed
from procscope.fuse.waiting import Waiter

Pair = tuple[socket.socket, socket.socket]


class Others:
    """Those before: they take requests until they are stuck."""

    def __init__(self, server: socket.socket, *, take: int) -> None:
        self._server = server
        self._left = take
        self._took = False

    def look(self) -> None:
        self._took = self._left > 0
        if self._took:
            self._left -= 1
            self._server.recv(4096)

    def is_due(self) -> bool:
        return not self._took

    def is_stuck(self) -> bool:
        return self.is_due()

    def may_rest_long(self) -> bool:
        return False


@pytest.fixture
def pair() -> Iterator[Pair]:
    """(the kernel's end, the server's end)."""
    kernel, server = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with kernel, server:
        yield kernel, server


@pytest.mark.parametrize("take", [0, 1, 3])
def test_it_is_needed_for_the_first_request_that_others_leave(pair: Pair, take: int) -> None:
    """And finds it where it was."""
    kernel, server = pair
    for number in range(take + 1):
        kernel.send(bytes([number]))
    wait_until_needed(server.fileno(), Others(server, take=take))
    assert server.recv(4096) == bytes([take])


class Late:
    """Seems to be stuck, and takes the first request though, after so many looks.

    The second one comes when it is clear that the first has been taken.
    """

    def __init__(self, kernel: socket.socket, server: socket.socket, after_looks: int) -> None:
        self._kernel = kernel
        self._server = server
        self._after_looks = after_looks
        self.looks = 0
        self.looks_at_first = 0

    def look(self) -> None:
        self.looks += 1
        if self.looks == self._after_looks:
            self._server.recv(4096)

    def is_due(self) -> bool:
        return True

    def is_stuck(self) -> bool:
        return self.is_due()

    def may_rest_long(self) -> bool:
        self.looks_at_first = self.looks
        self._kernel.send(b"second")
        return False


@pytest.mark.parametrize("after_looks", [1, 2])
def test_a_request_that_others_take_at_the_last_moment_is_not_its_own(
    pair: Pair, after_looks: int
) -> None:
    """It waits for the next one, which it leaves to the others for a moment again."""
    kernel, server = pair
    late = Late(kernel, server, after_looks)
    kernel.send(b"first")
    wait_until_needed(server.fileno(), late)
    assert server.recv(4096) == b"second"
    assert late.looks > late.looks_at_first >= after_looks


class Swamped(Others):
    """They work, and have too much to do: for `bursts` looks each, with an idle moment between."""

    def __init__(self, server: socket.socket, bursts: list[int]) -> None:
        super().__init__(server, take=0)
        self._bursts = bursts
        self.was_due = 0

    def is_due(self) -> bool:
        if not self._bursts[0]:
            self._bursts.pop(0)
            return False
        self._bursts[0] -= 1
        self.was_due += 1
        return True

    def is_stuck(self) -> bool:
        return False


def test_who_has_too_much_to_do_is_helped_where_that_lasts(pair: Pair) -> None:
    """Not when many containers are started at once."""
    kernel, server = pair
    swamped = Swamped(server, [1, 2, 5, 9, 30])
    kernel.send(b"one")
    wait_until_needed(server.fileno(), swamped)
    assert server.recv(4096) == b"one"
    assert swamped.was_due >= 1 + 2 + 5 + 9 + 10


def test_without_others_it_is_needed_for_the_first_one(pair: Pair) -> None:
    kernel, server = pair
    before = len(os.listdir("/proc/self/fd"))
    kernel.send(b"one")
    wait_until_needed(server.fileno(), None)
    assert server.recv(4096) == b"one"
    assert len(os.listdir("/proc/self/fd")) == before


class Busy:
    """Take every request; `follow` tells whether one of them follows its reader."""

    def __init__(self, *, follow: bool) -> None:
        self.follow = follow

    def look(self) -> None:
        """What they have begun is of no interest."""

    def is_due(self) -> bool:
        return False

    def is_stuck(self) -> bool:
        return self.is_due()

    def may_rest_long(self) -> bool:
        return self.follow


def test_it_rests_the_longer_the_less_others_want_to_be_disturbed(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests_ms: list[float] = []
    busy = Busy(follow=True)
    with closing(Waiter(pair[1].fileno())) as waiter:
        monkeypatch.setattr(waiter, "rest", lambda duration_s: rests_ms.append(duration_s * 1000))
        stand_in = StandIn(waiter, busy)
        assert not any(stand_in.is_needed() for _ in range(8))
        busy.follow = False
        assert not any(stand_in.is_needed() for _ in range(3))
    assert rests_ms == [1, 2, 4, 8, 16, 32, 64, 64, 64, 8, 8]
