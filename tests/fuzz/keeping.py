"""Target: the keeper's protocol."""

from __future__ import annotations

import os

from procscope.daemon import fields
from procscope.daemon.keeper import Keeper, RequestError, parse_request
from tests.fuzz.checks import attempt, require

_MOUNTPOINT = "/mount"


def keeper(data: bytes) -> None:
    """A packet of any bytes: a reply that can be sent, and no descriptor lost or kept by mistake.

    The first byte says how many descriptors come with it, and whether root has sent it.
    """
    head, packet = data[:1] or b"\0", data[1:]
    attempt(parse_request, packet, allowed=RequestError)
    by_root = not head[0] & 0x80
    one = Keeper(_MOUNTPOINT, {"fuse": os.open(os.devnull, os.O_RDONLY)})
    fds = [os.open(os.devnull, os.O_RDONLY) for _ in range(head[0] & 7)]
    held_before = dict(one.held)
    try:
        reply, to_send = one.answer(packet, list(fds), 0 if by_root else 65534)
        require(fields.unpack(fields.pack(reply)) == reply, "a reply that says something else")
        require(set(to_send) <= set(one.held.values()), "sends what it does not hold")
        if fields.first(reply, "ok") is None or not by_root:
            require(bool(fields.first(reply, "error")), "not refused")
            require(one.held == held_before, "what is held has changed")
            require(not to_send, "descriptors for who was refused")
        for fd in fds:
            require(_is_open(fd) == (fd in one.held.values()), "a descriptor is lost")
    finally:
        for fd in {*fds, *held_before.values()}:
            if fd not in one.held.values() and _is_open(fd):
                os.close(fd)
        one.release()


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
