"""Unix sockets of the state directory: packets with descriptors, for root alone.

They are those of `_socket`, which is what `socket` wraps: that one imports `enum` and `selectors`,
and would be a sixth of the memory of a keeper, of which one waits beside every daemon.
"""

from __future__ import annotations

import _socket
import contextlib
import os
import struct
from array import array
from collections.abc import Iterator, Sequence

MAX_PACKET_BYTES = 1 << 16
MAX_DESCRIPTORS = 32
Socket = _socket.socket
_KIND = _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC
_FD = array("i")
_UCRED = struct.Struct("=iII")
_BACKLOG = 16


def listen(directory: str, name: str) -> Socket:
    """Return a socket that listens at `directory`/`name`; one that is there is replaced.

    Raises OSError.
    """
    listener = Socket(_socket.AF_UNIX, _KIND)
    try:
        with _address(directory, name) as address:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(address)
            listener.bind(address)
            os.chmod(address, 0o600)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def connect(directory: str, name: str, timeout_s: float) -> Socket:
    """Return a connection to who listens at `directory`/`name`. Raises OSError."""
    connection = Socket(_socket.AF_UNIX, _KIND)
    try:
        connection.settimeout(timeout_s)
        with _address(directory, name) as address:
            connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def _address(directory: str, name: str) -> Iterator[str]:
    """Give a path that fits into sockaddr_un's 108 bytes, however long the directory's is."""
    folder = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{name}"
    finally:
        os.close(folder)


def accept(listener: Socket) -> Socket:
    """Return the next connection. Raises OSError, also where none waits and it does not block."""
    fd, _ = listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001 - it has no other
    return from_descriptor(fd)


def from_descriptor(fd: int) -> Socket:
    """Return the socket that is open as `fd`, which is its own from now on. Raises OSError."""
    return Socket(fileno=fd)


def notify(address: str, data: bytes, fds: Sequence[int] = ()) -> None:
    """Send one datagram, and descriptors, to who listens at `address`. Raises OSError."""
    sender = Socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    with contextlib.closing(sender):
        sender.connect(address)
        send(sender, data, fds)


def peer_uid(connection: Socket) -> int:
    """Return the user of the process at the other end, as it was at connect(2) (SO_PEERCRED)."""
    raw = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(raw)[1])


def send(connection: Socket, data: bytes, fds: Sequence[int] = ()) -> None:
    """Send one packet, and descriptors. Raises OSError."""
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array("i", fds))] if fds else []
    connection.sendmsg([data], rights)


def receive(connection: Socket) -> tuple[bytes, list[int]]:
    """Return one packet and the descriptors that came with it; empty at the end. Raises OSError.

    The descriptors are the caller's to close.
    """
    room = _socket.CMSG_SPACE(MAX_DESCRIPTORS * _FD.itemsize)
    data, ancillary, _, _ = connection.recvmsg(MAX_PACKET_BYTES, room, _socket.MSG_CMSG_CLOEXEC)
    fds = array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) - len(content) % _FD.itemsize])
    return data, fds.tolist()
