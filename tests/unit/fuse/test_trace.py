"""Proves that the tracer names what goes by and changes nothing."""

from __future__ import annotations

import logging
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.fuse import wire
from procscope.fuse.opcodes import BY_OPCODE
from procscope.fuse.trace import Tracer, describe_reply, describe_request, flags_text
from procscope.fuse.wire import FUSE_UNIQUE_RESEND
from tests.unit.fuse.memory import (
    CONTENT,
    FILE,
    MemoryFilesystem,
    init_request,
    payload,
    read_request,
    request,
    session,
)

OPEN = request(14, wire.fuse_open_in.pack(flags=os.O_RDWR | os.O_TRUNC), nodeid=FILE, unique=9)
LOOKUP = request(1, b"fil\xffe\0", unique=6 | FUSE_UNIQUE_RESEND)


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (OPEN, "OPEN unique=9 node=2 pid=4321 uid=1000 gid=100 flags=O_RDWR|O_TRUNC open_flags=0"),
        (LOOKUP, r"LOOKUP unique=6(RESEND) node=1 pid=4321 uid=1000 gid=100 'fil\udcffe'"),
        (request(12, bytes(8) + b"a\0b\0", unique=1), "newdir=0 'a' 'b'"),
        (request(9, wire.fuse_mkdir_in.pack(mode=0o755) + b"d\0"), "mode=0o755 umask=0o0 'd'"),
        (request(4, wire.fuse_setattr_in.pack(valid=9)), "valid=MODE|SIZE fh=0 size=0"),
        (init_request(flags=1 << 30 | 1 << 39 | 1), "flags=ASYNC_READ|INIT_EXT flags2=HAS_RESEND"),
        (init_request(minor=20, body_bytes=16, flags=2), "minor=20 max_readahead=131072"),
        (request(14, b"xx"), "(cut off, 2 bytes)"),
        (request(777, b"xx"), "opcode 777 unique"),
        (memoryview(b"short"), "5 bytes, less than a header"),
    ],
)
def test_a_request_is_named_field_by_field(message: memoryview, line: str) -> None:
    """Flags by their names, modes in octal, names quoted."""
    assert line in describe_request(message)


def test_replies_are_named() -> None:
    """An errno by name, a struct by its members, data by its size."""
    server = session()
    assert describe_reply(OPEN, server.handle(OPEN)) == "unique=9 EROFS"
    for_reading = request(14, wire.fuse_open_in.pack(), nodeid=FILE, unique=9)
    opened = describe_reply(for_reading, server.handle(for_reading))
    assert opened == "unique=9 OK fh=77 open_flags=DIRECT_IO|NOFLUSH"
    found = describe_reply(request(1, b"file\0"), server.handle(request(1, b"file\0")))
    assert "nodeid=2 " in found
    assert "attr.mode=0o100444 " in found
    read = read_request(0, 4096)
    assert describe_reply(read, server.handle(read)).endswith(f" OK {len(CONTENT)} bytes")
    assert describe_reply(request(2, bytes(8)), None) == "no reply"


def test_the_tracer_changes_nothing_and_logs_two_lines(caplog: pytest.LogCaptureFixture) -> None:
    """What it returns is the session's reply itself."""
    caplog.set_level(logging.DEBUG)
    tracer = Tracer(session(), logging.getLogger("test.trace"))
    assert payload(tracer.handle(read_request(0, 4096))) == CONTENT
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("-> READ unique=")
    assert second.startswith("<- unique=")


@given(
    st.binary(max_size=120)
    | st.builds(
        lambda opcode, body: bytes(request(opcode, body)),
        st.sampled_from([*sorted(BY_OPCODE), 0, 99999]),
        st.binary(max_size=120),
    )
)
def test_any_bytes_have_one_line(junk: bytes) -> None:
    """No request ends the tracer, and none can break out of its line."""
    message = memoryview(junk)
    reply = session(MemoryFilesystem(names=[b"a"])).handle(message)
    for line in (describe_request(message), describe_reply(message, reply)):
        assert line
        assert line.isprintable()


@given(st.integers(0, (1 << 32) - 1))
def test_flags_add_up(value: int) -> None:
    """Every bit is in exactly one word."""
    table = wire.flag_names("FOPEN_")
    bits = {name: bit for bit, name in table.items()}
    words = flags_text(value, table).split("|")
    assert sum(bits.get(word) or int(word, 16) for word in words) == value
