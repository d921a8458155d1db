"""The control socket: what `procscope status`, `reload` and `stop` ask the supervisor.

A packet is an object as JSON with `op`; its reply has `ok`, and `error` where that is false.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import struct

from procscope.daemon import sockets
from procscope.errors import ProcscopeError
from procscope.values import frozen

SOCKET_NAME = "control.sock"
LOCK_NAME = "lock"
_TIMEOUT_S = 1.0
_FLOCK = struct.Struct("@hhqqi0q")
"""`struct flock` of `<fcntl.h>` with offsets of 64 bits, as the interpreter is compiled."""
_log = logging.getLogger(__name__)


class AlreadyServedError(ProcscopeError):
    """Another supervisor has the lock."""


@frozen
class Order:
    """One request, and where its reply goes."""

    operation: str
    connection: sockets.Socket

    @classmethod
    def from_descriptor(cls, operation: str, fd: int) -> Order:
        """Return the request whose connection an earlier version has handed on."""
        return cls(operation, sockets.from_descriptor(fd))

    def reply(self, **members: object) -> None:
        """Answer that it is done, and hang up."""
        self._send({"ok": True, **members})

    def refuse(self, error: str) -> None:
        """Answer that it is not, and why, and hang up."""
        self._send({"ok": False, "error": error})

    def _send(self, message: dict[str, object]) -> None:
        # Who has asked may have gone.
        with contextlib.suppress(OSError):
            sockets.send(self.connection, json.dumps(message).encode())
        self.connection.close()


class ControlSocket:
    """The supervisor's side. SIGIO says that somebody asks: the supervisor waits for signals."""

    def __init__(self, state_directory: str, inherited_fd: int | None = None) -> None:
        """`inherited_fd` is that of the code before: who asks meanwhile waits. Raises OSError."""
        self._listener = (
            sockets.listen(state_directory, SOCKET_NAME)
            if inherited_fd is None
            else sockets.from_descriptor(inherited_fd)
        )
        self._listener.setblocking(False)
        fd = self._listener.fileno()
        fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)

    def next_order(self) -> Order | None:
        """Return the next request that waits; None where there is none."""
        while True:
            try:
                connection = sockets.accept(self._listener)
            except OSError:
                return None
            order = self._order(connection)
            if order is not None:
                return order
            connection.close()

    def _order(self, connection: sockets.Socket) -> Order | None:
        # The packet was sent right after connect(2); who keeps us waiting is root, or broken.
        connection.settimeout(_TIMEOUT_S)
        try:
            if sockets.peer_uid(connection) not in (0, os.geteuid()):
                return None
            data, fds = sockets.receive(connection)
            for fd in fds:
                os.close(fd)
            operation = _parse(data).get("op")
        except (OSError, ValueError) as error:
            _log.debug("a request on the control socket is of no use: %s", error)
            return None
        return Order(str(operation), connection)

    def fileno(self) -> int:
        """Return the descriptor, to be handed on."""
        return self._listener.fileno()

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()


def ask(state_directory: str, operation: str, timeout_s: float) -> dict[str, object] | None:
    """Send a request to the supervisor and return its reply; None where none is there.

    Raises ProcscopeError where it refuses, or does not answer.
    """
    try:
        connection = sockets.connect(state_directory, SOCKET_NAME, timeout_s)
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except OSError as error:
        raise ProcscopeError(
            f"cannot reach the daemon by {state_directory}/{SOCKET_NAME}: {error.strerror}",
            hint="run as root",
        ) from None
    with contextlib.closing(connection):
        try:
            sockets.send(connection, json.dumps({"op": operation}).encode())
            data, fds = sockets.receive(connection)
            reply = _parse(data)
        except (OSError, ValueError):
            raise ProcscopeError(
                f"the daemon did not answer to {operation}", hint="see its log"
            ) from None
    for fd in fds:
        os.close(fd)
    if reply.get("ok") is not True:
        raise ProcscopeError(str(reply.get("error")), hint="see the daemon's log")
    return reply


def _parse(data: bytes) -> dict[str, object]:
    """Return a packet's object. Raises ValueError where it is none."""
    try:
        message = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(message, dict):
        raise ValueError("not an object")
    return message


def acquire_lock(state_directory: str, mountpoint: str, inherited_fd: int | None = None) -> int:
    """Return a descriptor whose record lock says that this process serves `mountpoint`.

    A record lock belongs to the process, also over an exec, and not to its children: it ends with
    the supervisor and with nobody else. Raises AlreadyServedError, OSError.
    """
    fd = _open_lock(state_directory) if inherited_fd is None else inherited_fd
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise AlreadyServedError(
            f"{mountpoint} is already served by another daemon",
            hint="`procscope status` tells of it; stop that one first, or give another mountpoint",
        ) from None
    return fd


def lock_holder(state_directory: str) -> int | None:
    """Return the pid of the supervisor that runs; None where none does. Raises OSError.

    Not for the supervisor itself: it would lose its lock with the descriptor that is closed here.
    """
    fd = _open_lock(state_directory)
    try:
        kind, _, _, _, pid = _FLOCK.unpack(
            fcntl.fcntl(fd, fcntl.F_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        )
    finally:
        os.close(fd)
    return None if kind == fcntl.F_UNLCK else pid


def _open_lock(state_directory: str) -> int:
    path = os.path.join(state_directory, LOCK_NAME)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


SIGNAL = signal.SIGIO
"""What the kernel sends the supervisor when somebody asks."""
