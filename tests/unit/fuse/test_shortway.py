"""Proves: what is known is answered as the session would, and all else by the session."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.fuse import opcodes, wire
from procscope.fuse.filesystem import Attributes, Caller
from procscope.fuse.protocol import Session
from procscope.fuse.replies import attr_out
from procscope.fuse.shortway import ShortWay
from procscope.ids import FileHandle, NodeId, Pid
from tests.unit.fuse.memory import FILE, MISSING, MemoryFilesystem, request, state

ASKING = bytes(request(opcodes.FUSE_GETATTR, bytes(wire.fuse_getattr_in.size), nodeid=FILE))


class Asked(MemoryFilesystem):
    """Counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def getattr(self, caller: Caller, nodeid: NodeId, fh: FileHandle | None) -> Attributes:
        self.asked += 1
        return super().getattr(caller, nodeid, fh)

    def known(self, nodeid: NodeId) -> bytes | None:
        if nodeid != FILE:
            return None
        return attr_out(super().getattr(Caller(Pid(1), 0, 0, 1), nodeid, None))


def test_what_is_known_is_answered_without_asking() -> None:
    tree = Asked()
    session = Session(tree, state())
    short = ShortWay(session, tree.known)
    assert short.handle(memoryview(ASKING)) == session.handle(memoryview(ASKING))
    assert tree.asked == 1
    other = request(opcodes.FUSE_GETATTR, bytes(wire.fuse_getattr_in.size), nodeid=MISSING)
    assert short.handle(other) == session.handle(other)
    assert tree.asked == 3


def _with_length(length: int) -> bytes:
    return length.to_bytes(4, "little") + ASKING[4:]


@pytest.mark.parametrize(
    "asking",
    [
        ASKING[:-1],
        ASKING + b"x",
        _with_length(1),
        _with_length(len(ASKING) + 1),
        ASKING[:8] + bytes(8) + ASKING[16:],
        ASKING[:3],
        b"",
    ],
)
def test_what_is_malformed_is_left_to_the_session(asking: bytes) -> None:
    tree = Asked()
    session = Session(tree, state())
    assert ShortWay(session, tree.known).handle(memoryview(asking)) == session.handle(
        memoryview(asking)
    )
    assert tree.asked == 0


@given(
    st.one_of(
        st.binary(max_size=80),
        st.tuples(st.integers(0, len(ASKING) - 1), st.integers(0, 255)).map(
            lambda change: ASKING[: change[0]] + bytes([change[1]]) + ASKING[change[0] + 1 :]
        ),
    )
)
def test_whatever_comes_the_answer_is_the_sessions(asking: bytes) -> None:
    tree = Asked()
    session = Session(tree, state())
    assert ShortWay(session, tree.known).handle(memoryview(asking)) == session.handle(
        memoryview(asking)
    )
