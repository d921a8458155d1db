"""Processes that do what a test tells them, in the cgroup where the test puts them."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import socket
import struct
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn, TypeVar, cast

from procscope.linux import syscalls
from tests.integration.cgroups import ROOT, Group

T = TypeVar("T")
_LENGTH = struct.Struct("=Q")


class AgentError(Exception):
    """An agent died, or failed with an error that cannot be sent."""


class Agent:
    """A process of its own. Functions are sent by name, so they are module-level ones."""

    def __init__(self, group: Group) -> None:
        """The process starts in `group`: what it inherits is charged to nobody else."""
        self._socket, theirs = socket.socketpair()
        self.pid = fork()
        if self.pid == 0:
            _serve(theirs, group)
        theirs.close()
        self._receive()

    def call(self, function: Callable[..., T], *args: object) -> T:
        """Run `function` there; return what it returns, raise what it raises."""
        self.send(function, *args)
        return cast("T", self._receive())

    def send(self, function: Callable[..., object], *args: object) -> None:
        """Start `function` there; `receive` waits for its end."""
        _send(self._socket, (function, args))

    def receive(self) -> object:
        """Return what the function that was sent returns."""
        return self._receive()

    def move(self, group: Group) -> None:
        """Move the process into a cgroup."""
        group.add(self.pid)

    def close(self) -> None:
        """End the process."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self._socket.close()

    def _receive(self) -> object:
        try:
            ok, value = _recv(self._socket)
        except EOFError:
            raise AgentError(f"agent {self.pid} died") from None
        if ok:
            return value
        if isinstance(value, BaseException):
            raise value
        raise AgentError(str(value))


@contextmanager
def agent(group: Group = ROOT) -> Iterator[Agent]:
    """An agent in a cgroup; without one, on the host."""
    one = Agent(group)
    try:
        yield one
    finally:
        one.close()


def fork() -> int:
    """fork(2); the one other thread of a test process is a watchdog that Python did not start.

    In the child no garbage is looked for among what it inherits: that would copy all of it, and
    charge its cgroup for as much as the test process has.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        gc.freeze()
    return pid


def _serve(connection: socket.socket, group: Group) -> NoReturn:
    code = 1
    try:
        syscalls.set_pdeathsig(signal.SIGKILL)
        group.add(0)
        _send(connection, (True, None))
        while True:
            function, args = cast(
                "tuple[Callable[..., object], tuple[object, ...]]", _recv(connection)
            )
            _send(connection, _outcome(function, args))
    except EOFError:
        code = 0
    except BaseException:  # noqa: BLE001 - the process ends here whatever it was
        traceback.print_exc()
    finally:
        os._exit(code)


def _outcome(function: Callable[..., object], args: tuple[object, ...]) -> tuple[bool, object]:
    try:
        return True, function(*args)
    except OSError as error:
        return False, error
    except BaseException:  # noqa: BLE001 - told to the test
        return False, traceback.format_exc()


def _send(connection: socket.socket, message: object) -> None:
    data = pickle.dumps(message)
    connection.sendall(_LENGTH.pack(len(data)) + data)


def _recv(connection: socket.socket) -> tuple[object, object]:
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    return cast("tuple[object, object]", pickle.loads(_exactly(connection, length)))


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data


# What agents are told to do.


def read(path: str) -> bytes:
    """Open, read to the end, close."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def read_many(path: str, times: int) -> list[bytes]:
    """Open, read, close, so many times."""
    return [read(path) for _ in range(times)]


def read_rarely(path: str, times: int, pause_s: float) -> None:
    """Open, read to the end and close, with a pause before each."""
    for _ in range(times):
        time.sleep(pause_s)
        read(path)


def errno_of(function: Callable[..., object], *args: object) -> int:
    """The errno with which `function` fails; 0 if it does not."""
    try:
        function(*args)
    except OSError as error:
        return error.errno or -1
    return 0
