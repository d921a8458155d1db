"""FUSE_NOTIFY_RESEND: the kernel sends again what was read and not answered."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from procscope.fuse import device, opcodes, replies, wire
from procscope.fuse.filesystem import Attributes
from procscope.fuse.replies import Reply
from procscope.fuse.wire import InitFlag
from procscope.tree.nodeids import ROOT
from tests.integration.agents import Agent, errno_of
from tests.integration.daemons import folder

VALID_NS = 60_000_000_000


def test_a_request_that_is_not_answered_comes_again(host: Agent) -> None:
    with folder() as place:
        fd = device.open_device()
        device.mount(fd, str(place))
        try:
            agreed = device.exchange_init(fd)
            host.send(errno_of, os.stat, str(place / "name"))
            first = read_lookup(fd)
            if agreed.has(InitFlag.FUSE_HAS_RESEND):
                device.ask_for_resend(fd)
                second = read_lookup(fd)
                assert second == first | wire.FUSE_UNIQUE_RESEND
                first = second
            os.write(fd, replies.error(first, errno.ENOENT))
            assert host.receive() == errno.ENOENT
        finally:
            device.unmount(str(place))
            os.close(fd)


def read_lookup(fd: int) -> int:
    """The number of the next LOOKUP; the permission check on the way is answered."""
    while True:
        header = wire.fuse_in_header.unpack(os.read(fd, 1 << 16))
        if header["opcode"] == opcodes.FUSE_LOOKUP:
            return header["unique"]
        root = Attributes(nodeid=ROOT, mode=stat.S_IFDIR | 0o755, nlink=2, valid_ns=VALID_NS)
        os.writev(
            fd, [bytes(part) for part in as_parts(replies.attributes(header["unique"], root))]
        )


def as_parts(reply: Reply) -> Sequence[bytes | memoryview]:
    assert reply is not None
    return [reply] if isinstance(reply, bytes) else reply
