"""The keeper: a process that holds a daemon's descriptors while the daemon is restarted.

It knows nothing of what it holds, so that a keeper of an earlier release serves any later daemon.
One packet is one request, one packet its reply, each a JSON object with `protocol`; unknown members
are ignored on both sides, and an operation that is not known gets an error.

hello   reply: `pid`, `names` of what is held
put     keep the descriptors that come with it, called `names`, in the place of what is held
get     reply: the descriptors, and their `names`
drop    hold nothing any more, and end

Whoever asks must be root, or the keeper's own user, by SO_PEERCRED, and name the same `mountpoint`.
The keeper ends by itself once the mount that it keeps is gone, and when no daemon has been
connected for two minutes: who reads then gets an error, and does not wait for ever. Workers that
still serve hold the same descriptors, and lose nothing by it.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from procscope.daemon import sockets

PROTOCOL = 1
SOCKET_NAME = "keeper.sock"
FUSE = "fuse"
"""The one name that means something here: when this descriptor is dead, so is the mount."""
_LOOK_EVERY_MS = 5000
_ALONE_S = 120.0
_MAX_NAME_BYTES = 64


class RequestError(Exception):
    """A request that is not carried out, and why."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a keeper."""

    operation: str
    mountpoint: str
    names: tuple[str, ...] = ()


def parse_request(data: bytes) -> Request:
    """Return the request that is in a packet. Raises RequestError."""
    try:
        message = sockets.parse(data)
    except ValueError as error:
        raise RequestError(f"no request: {error}") from None
    operation, mountpoint = message.get("op"), message.get("mountpoint")
    names = message.get("names", [])
    if not isinstance(operation, str) or not isinstance(mountpoint, str):
        raise RequestError("a request has an op and a mountpoint")
    if not isinstance(names, list) or not all(_is_name(name) for name in names):
        raise RequestError("names is no list of names")
    if len(set(names)) != len(names):
        raise RequestError("a name comes twice")
    return Request(operation, mountpoint, tuple(names))


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_NAME_BYTES and value.isprintable()


@dataclass(slots=True)
class Keeper:
    """What is held for one mountpoint, and the answers to requests."""

    mountpoint: str
    held: dict[str, int] = field(default_factory=dict)
    ended: bool = False

    def answer(self, data: bytes, fds: list[int], uid: int) -> tuple[dict[str, object], list[int]]:
        """Return the reply to a packet, and the descriptors to send with it.

        Takes over `fds`: what it does not keep, it closes.
        """
        try:
            if uid not in (0, os.geteuid()):
                raise RequestError("not root")
            request = parse_request(data)
            if request.mountpoint != self.mountpoint:
                raise RequestError(f"this keeper is for {self.mountpoint}")
            return self._carry_out(request, fds)
        except RequestError as error:
            return {"protocol": PROTOCOL, "ok": False, "error": str(error)}, []
        finally:
            for fd in set(fds) - set(self.held.values()):
                os.close(fd)

    def _carry_out(self, request: Request, fds: list[int]) -> tuple[dict[str, object], list[int]]:
        if request.operation == "put":
            if len(fds) != len(request.names) or not fds:
                raise RequestError(f"{len(request.names)} names for {len(fds)} descriptors")
            self.release()
            self.held = dict(zip(request.names, fds, strict=True))
        elif request.operation == "drop":
            self.release()
            self.ended = True
        elif request.operation not in ("get", "hello"):
            raise RequestError(f"unknown operation {request.operation[:_MAX_NAME_BYTES]!r}")
        reply = {
            "protocol": PROTOCOL,
            "ok": True,
            "pid": os.getpid(),
            "names": list(self.held),
        }
        return reply, list(self.held.values()) if request.operation == "get" else []

    def release(self) -> None:
        """Close what is held."""
        for fd in self.held.values():
            os.close(fd)
        self.held = {}

    def is_pointless(self) -> bool:
        """Tell whether what is held is of no use any more: fuse_dev_poll() reports POLLERR."""
        if FUSE not in self.held:
            return False
        poll = select.poll()
        poll.register(self.held[FUSE], 0)
        return any(events & (select.POLLERR | select.POLLNVAL) for _, events in poll.poll(0))


def serve(listener: socket.socket, keeper: Keeper) -> None:
    """Answer requests until the keeper has nothing to keep."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    connections: dict[int, socket.socket] = {}
    alone_since_s = time.monotonic()
    while not keeper.ended:
        # What is held is not polled for: each request to the daemon would wake the keeper.
        ready = poll.poll(_LOOK_EVERY_MS)
        if ready or connections:
            alone_since_s = time.monotonic()
        if not ready and (keeper.is_pointless() or time.monotonic() - alone_since_s > _ALONE_S):
            return
        for fd, _ in ready:
            if fd == listener.fileno():
                # No descriptor may be left, or who connected may have gone.
                with contextlib.suppress(OSError):
                    connection, _ = listener.accept()
                    connections[connection.fileno()] = connection
                    poll.register(connection, select.POLLIN)
            elif not _answer_one(connections[fd], keeper):
                poll.unregister(fd)
                connections.pop(fd).close()


def _answer_one(connection: socket.socket, keeper: Keeper) -> bool:
    """Answer the packet that has arrived; False where the other end has gone."""
    try:
        data, fds = sockets.receive(connection)
        if not data and not fds:
            return False
        reply, to_send = keeper.answer(data, fds, sockets.peer_uid(connection))
        # Nobody may make the keeper wait: a packet that does not fit is not sent.
        connection.setblocking(False)
        sockets.send(connection, reply, to_send)
        connection.setblocking(True)
    except OSError:
        return False
    return True


def request(
    operation: str, mountpoint: str, held: Mapping[str, int]
) -> tuple[dict[str, object], list[int]]:
    """Return a request's packet and descriptors, for `sockets.send`."""
    message: dict[str, object] = {"protocol": PROTOCOL, "op": operation, "mountpoint": mountpoint}
    if held:
        message["names"] = list(held)
    return message, list(held.values())


def main(arguments: list[str]) -> int:
    """Be the keeper of MOUNTPOINT, the first argument; the second is the descriptor of a socket.

    Returns in the first process as soon as a second one, a child of nobody, answers.
    """
    mountpoint, fd = arguments
    listener = socket.socket(fileno=int(fd))
    if os.fork():
        return 0
    os.setsid()
    os.chdir("/")
    with open("/proc/self/comm", "w", encoding="ascii") as comm:
        comm.write("procscope-keep")
    serve(listener, Keeper(mountpoint))
    return 0
