"""A short way for GETATTR where the answer is known, before anything is taken apart.

Who asks for attributes after their time is over has paused. By then nothing of this process is in
any cache, and an answer costs by the number of functions and objects on the way to it.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final

from procscope.fuse import opcodes, wire
from procscope.fuse.replies import ATTRIBUTES_REPLY_BYTES, Reply
from procscope.fuse.responder import RequestHandler
from procscope.ids import NodeId

_REQUEST_BYTES: Final = wire.fuse_in_header.size + wire.fuse_getattr_in.size
_unpack_request: Final = Struct("=IIQQ").unpack_from
"""The first fields of fuse_in_header: length, opcode, unique, nodeid."""
_pack_header: Final = wire.fuse_out_header.struct.pack


class ShortWay:
    """Answers GETATTR as `known` says, and leaves all else to `handler`."""

    def __init__(self, handler: RequestHandler, known: Callable[[NodeId], bytes | None]) -> None:
        """`known` returns a fuse_attr_out that is right now, or None."""
        self._handle = handler.handle
        self._known = known

    def handle(self, request: memoryview) -> Reply:
        """See `RequestHandler.handle`."""
        if len(request) == _REQUEST_BYTES:
            length, opcode, unique, nodeid = _unpack_request(request)
            if opcode == opcodes.FUSE_GETATTR and length == _REQUEST_BYTES and unique:
                known = self._known(nodeid)
                if known is not None:
                    return _pack_header(ATTRIBUTES_REPLY_BYTES, 0, unique) + known
        return self._handle(request)
