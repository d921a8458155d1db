"""The keeper: a process that holds a daemon's descriptors while the daemon is restarted.

It knows nothing of what it holds, so that a keeper of an earlier release serves any later daemon.
One packet is one request, one packet its reply, each of fields (`daemon/fields.py`) of which one is
`protocol`; unknown ones are ignored on both sides, and an operation not known gets an error.

hello   reply: `pid`, and a `name` for each descriptor that is held
put     keep the descriptors that come with it, a `name` for each, in the place of what is held
get     reply: the descriptors, and a `name` for each
drop    hold nothing any more, and end

A reply has the field `ok`, or `error` and why.

Whoever asks must be root, or the keeper's own user, by SO_PEERCRED, and name the same `mountpoint`.
The keeper ends by itself once the mount that it keeps is gone, and when no daemon has been
connected for two minutes: who reads then gets an error, and does not wait for ever. Workers that
still serve hold the same descriptors, and lose nothing by it. One that `lasts` is ended by a signal
alone (`daemon/nodekeeper.py`), which the replies tell by `ending`: nothing is put any more.

It imports little: a daemon waits for its keeper at its start, and what a keeper imports it has for
itself alone.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Mapping

from procscope.daemon import fields, sockets
from procscope.daemon.fields import Fields

PROTOCOL = 2
_PROTOCOL_FIELD = ("protocol", str(PROTOCOL))
SOCKET_NAME = "keeper.sock"
FUSE = "fuse"
"""The one name that means something here: when this descriptor is dead, so is the mount."""
LOOK_EVERY_MS = 5000
ALONE_S = 120.0
_MAX_NAME_BYTES = 64


class RequestError(Exception):
    """A request that is not carried out, and why."""


class Request:
    """One request to a keeper."""

    __slots__ = ("mountpoint", "names", "operation")

    def __init__(self, operation: str, mountpoint: str, names: tuple[str, ...] = ()) -> None:
        self.operation = operation
        self.mountpoint = mountpoint
        self.names = names


def parse_request(data: bytes) -> Request:
    """Return the request that is in a packet. Raises RequestError."""
    try:
        message = fields.unpack(data)
    except ValueError as error:
        raise RequestError(f"no request: {error}") from None
    operation, mountpoint = fields.first(message, "op"), fields.first(message, "mountpoint")
    names = fields.every(message, "name")
    if operation is None or mountpoint is None:
        raise RequestError("a request has an op and a mountpoint")
    if not all(_is_name(name) for name in names):
        raise RequestError("what is no name of a descriptor")
    if len(set(names)) != len(names):
        raise RequestError("a name comes twice")
    return Request(operation, mountpoint, tuple(names))


def _is_name(text: str) -> bool:
    return 0 < len(text) <= _MAX_NAME_BYTES and text.isprintable()


class Keeper:
    """What is held for one mountpoint, and the answers to requests."""

    def __init__(
        self, mountpoint: str, held: Mapping[str, int] | None = None, *, lasts: bool = False
    ) -> None:
        """`lasts`: it is there for the next daemon when it has nothing to hold."""
        self.mountpoint = mountpoint
        self.held = dict(held or {})
        self.lasts = lasts
        self.ending = False
        """Whether it only gives out what it holds, to whoever takes over in time."""
        self.was_got = False
        """Whether somebody has got what is held."""
        self.ended = False

    def answer(self, data: bytes, fds: list[int], uid: int) -> tuple[Fields, list[int]]:
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
            return (_PROTOCOL_FIELD, ("error", str(error))), []
        finally:
            for fd in set(fds) - set(self.held.values()):
                os.close(fd)

    def _carry_out(self, request: Request, fds: list[int]) -> tuple[Fields, list[int]]:
        if request.operation == "put":
            if self.ending:
                raise RequestError("this keeper is ending")
            if len(fds) != len(request.names) or not fds:
                raise RequestError(f"{len(request.names)} names for {len(fds)} descriptors")
            self.release()
            self.held = dict(zip(request.names, fds, strict=True))
        elif request.operation == "drop":
            self.release()
            self.ended = not self.lasts
        elif request.operation == "get":
            self.was_got = True
        elif request.operation != "hello":
            raise RequestError(f"unknown operation {request.operation[:_MAX_NAME_BYTES]!r}")
        reply = [_PROTOCOL_FIELD, ("ok", ""), ("pid", str(os.getpid()))]
        reply += [("name", name) for name in self.held]
        if self.ending:
            reply.append(("ending", ""))
        return tuple(reply), list(self.held.values()) if request.operation == "get" else []

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


class Server:
    """Those who are connected to a keeper."""

    def __init__(self, listener: sockets.Socket, keeper: Keeper) -> None:
        self._listener = listener
        self._keeper = keeper
        self._connections: dict[int, sockets.Socket] = {}
        # What is held is not polled for: each request to the daemon would wake the keeper.
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)
        self._alone_since_s = time.monotonic()

    def alone_s(self) -> float:
        """Return for how long nobody has been connected."""
        return time.monotonic() - self._alone_since_s

    def is_alone(self) -> bool:
        """Tell whether nobody is connected: who is tells when to end, and hangs up at its end."""
        return not self._connections

    def answer(self, wait_ms: float | None, wakeup_fd: int | None = None) -> bool:
        """Answer what arrives within that time; tell whether anything did.

        What arrives at `wakeup_fd` ends the wait, and is left there.
        """
        if wakeup_fd is not None:
            self._poll.register(wakeup_fd, select.POLLIN)
        ready = self._poll.poll(wait_ms)
        if ready or self._connections:
            self._alone_since_s = time.monotonic()
        for fd, _ in ready:
            if fd == self._listener.fileno():
                self._accept()
            elif fd in self._connections and not _answer_one(self._connections[fd], self._keeper):
                self._forget(fd)
        return bool(ready)

    def hang_up(self) -> bool:
        """End every connection; tell whether there was one.

        Who wants something has to connect again.
        """
        connected = list(self._connections)
        for fd in connected:
            self._forget(fd)
        return bool(connected)

    def _accept(self) -> None:
        # No descriptor may be left, or who connected may have gone.
        with contextlib.suppress(OSError):
            connection = sockets.accept(self._listener)
            self._connections[connection.fileno()] = connection
            self._poll.register(connection, select.POLLIN)

    def _forget(self, fd: int) -> None:
        self._poll.unregister(fd)
        self._connections.pop(fd).close()


def serve(listener: sockets.Socket, keeper: Keeper) -> None:
    """Answer requests until the keeper has nothing to keep."""
    server = Server(listener, keeper)
    while not keeper.ended:
        answered = server.answer(LOOK_EVERY_MS if server.is_alone() else None)
        if not answered and (keeper.is_pointless() or server.alone_s() > ALONE_S):
            return


def _answer_one(connection: sockets.Socket, keeper: Keeper) -> bool:
    """Answer the packet that has arrived; False where the other end has gone."""
    try:
        data, fds = sockets.receive(connection)
        if not data and not fds:
            return False
        reply, to_send = keeper.answer(data, fds, sockets.peer_uid(connection))
        # Nobody may make the keeper wait: a packet that does not fit is not sent.
        connection.setblocking(False)
        sockets.send(connection, fields.pack(reply), to_send)
        connection.setblocking(True)
    except OSError:
        return False
    return True


def request(operation: str, mountpoint: str, held: Mapping[str, int]) -> tuple[bytes, list[int]]:
    """Return a request's packet and descriptors, for `sockets.send`."""
    message = [_PROTOCOL_FIELD, ("op", operation), ("mountpoint", mountpoint)]
    message += [("name", name) for name in held]
    return fields.pack(message), list(held.values())


def main(arguments: list[str]) -> int:
    """Be the keeper of MOUNTPOINT, the first argument; the second is the descriptor of a socket.

    Returns in the first process as soon as a second one, a child of nobody, answers.
    """
    mountpoint, fd = arguments
    listener = sockets.from_descriptor(int(fd))
    if os.fork():
        return 0
    os.setsid()
    os.chdir("/")
    with open("/proc/self/comm", "w", encoding="ascii") as comm:
        comm.write("procscope-keep")
    serve(listener, Keeper(mountpoint))
    return 0
