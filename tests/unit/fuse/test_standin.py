"""Proves what a process that stands in for others takes, on a pair of sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from threading import Timer

import pytest

from procscope.fuse.standin import wait_until_needed

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

    def is_wanted(self) -> bool:
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
    """Has begun nothing when it is looked at, and takes the first request just after that."""

    def __init__(self, kernel: socket.socket, server: socket.socket) -> None:
        self._server = server
        self._next = Timer(0.01, kernel.send, (b"second",))
        self.looks = 0

    def look(self) -> None:
        self.looks += 1

    def is_due(self) -> bool:
        if self.looks == 1:
            self._server.recv(4096)
            self._next.start()
        return True

    def is_wanted(self) -> bool:
        return False


def test_a_request_that_others_take_at_the_last_moment_is_not_its_own(pair: Pair) -> None:
    """It waits for the next one, which it leaves to the others for a moment again."""
    kernel, server = pair
    late = Late(kernel, server)
    kernel.send(b"first")
    wait_until_needed(server.fileno(), late)
    assert server.recv(4096) == b"second"
    assert late.looks == 2


def test_without_others_it_is_needed_for_the_first_one(pair: Pair) -> None:
    kernel, server = pair
    before = len(os.listdir("/proc/self/fd"))
    kernel.send(b"one")
    wait_until_needed(server.fileno(), None)
    assert server.recv(4096) == b"one"
    assert len(os.listdir("/proc/self/fd")) == before
