"""Unix sockets of the state directory: packets with descriptors, for root alone."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from array import array
from collections.abc import Iterator, Sequence

MAX_PACKET_BYTES = 1 << 16
MAX_DESCRIPTORS = 32
_KIND = socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC
_FD = array("i")
_UCRED = struct.Struct("=iII")
_BACKLOG = 16


def listen(directory: str, name: str) -> socket.socket:
    """Return a socket that listens at `directory`/`name`; one that is there is replaced.

    Raises OSError.
    """
    listener = socket.socket(socket.AF_UNIX, _KIND)
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


def connect(directory: str, name: str, timeout_s: float) -> socket.socket:
    """Return a connection to who listens at `directory`/`name`. Raises OSError."""
    connection = socket.socket(socket.AF_UNIX, _KIND)
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


def peer_uid(connection: socket.socket) -> int:
    """Return the user of the process at the other end, as it was at connect(2) (SO_PEERCRED)."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(raw)[1])


def send(connection: socket.socket, data: bytes, fds: Sequence[int] = ()) -> None:
    """Send one packet, and descriptors. Raises OSError."""
    socket.send_fds(connection, [data], list(fds))


def receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """Return one packet and the descriptors that came with it; empty at the end. Raises OSError.

    The descriptors are the caller's to close.
    """
    # socket.recv_fds() ignores its flags, and the descriptors would be inherited.
    room = socket.CMSG_SPACE(MAX_DESCRIPTORS * _FD.itemsize)
    data, ancillary, _, _ = connection.recvmsg(MAX_PACKET_BYTES, room, socket.MSG_CMSG_CLOEXEC)
    fds = array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) - len(content) % _FD.itemsize])
    return data, fds.tolist()
