"""Targets: the decoder of requests, the tracer, INIT, and the stored state of a connection."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from procscope.errors import ProcscopeError
from procscope.fuse import opcodes, wire
from procscope.fuse.negotiation import ConnectionState, negotiate
from procscope.fuse.opcodes import BY_OPCODE, Answer
from procscope.fuse.protocol import Refuser, Session
from procscope.fuse.replies import Reply
from procscope.fuse.trace import describe_reply, describe_request
from tests.fuzz.checks import attempt, require
from tests.unit.fuse.memory import MemoryFilesystem, state

HEADER = wire.fuse_in_header.size
OUT_HEADER = wire.fuse_out_header.size
_LONGEST_TRACE = 40_000
_DIRENT = struct.Struct("=QQII")

FILESYSTEM = MemoryFilesystem(names=[b"a", b"bc" * 30, b"\xff\xfe", b"x" * 255] * 3)
SESSION = Session(FILESYSTEM, state())


def with_true_length(data: bytes) -> bytes:
    """The request with a `len` that is right, as the kernel always sends it."""
    return struct.pack("=I", len(data)) + data[4:]


def whole(reply: Reply) -> bytes:
    """What is written to the kernel."""
    if reply is None:
        return b""
    return reply if isinstance(reply, bytes) else b"".join(reply)


def check_reply(data: bytes, reply: Reply) -> None:
    """Raise unless fuse_dev_do_write() takes this for an answer to the request `data`."""
    if len(data) < HEADER:
        require(reply is None, "a reply to what is no request")
        return
    request = wire.fuse_in_header.unpack(data)
    operation = BY_OPCODE.get(request["opcode"])
    silent = operation is not None and operation.answer in (
        Answer.NO_REPLY,
        Answer.HANDLED_WITHOUT_REPLY,
    )
    if silent or not request["unique"]:
        require(reply is None, "a reply that is not due")
        return
    raw = whole(reply)
    require(len(raw) >= OUT_HEADER, "no reply, or half of one")
    header = wire.fuse_out_header.unpack(raw)
    require(header["len"] == len(raw), f"len is {header['len']} of {len(raw)} bytes")
    require(header["unique"] == request["unique"], "another request's reply")
    require(-512 < header["error"] <= 0, f"error {header['error']}")
    if header["error"]:
        require(len(raw) == OUT_HEADER, "an error with a body")
        return
    require(operation is not None, "success of an unknown request")
    assert operation is not None
    require(operation.answer is Answer.HANDLED, f"success of {operation.name}")
    _check_body(operation.opcode, data, raw[OUT_HEADER:])


def _check_body(opcode: int, data: bytes, body: bytes) -> None:
    """The kernel's own checks of a successful reply (copy_out_args() in fs/fuse/dev.c)."""
    layout = BY_OPCODE[opcode].reply
    if layout is not None:
        require(len(body) == layout.size, f"{len(body)} bytes of {layout.name}")
    elif opcode == opcodes.FUSE_READLINK:
        require(len(body) <= 4095, "a link longer than a page")
    elif opcode in (opcodes.FUSE_READ, opcodes.FUSE_READDIR, opcodes.FUSE_READDIRPLUS):
        size = wire.fuse_read_in.unpack(data, HEADER)["size"]
        require(len(body) <= size, f"{len(body)} bytes for a READ of {size}")
        if opcode != opcodes.FUSE_READ:
            _check_directory(body, plus=opcode == opcodes.FUSE_READDIRPLUS)
    else:
        require(not body, "a body where none is due")


def _check_directory(body: bytes, *, plus: bool) -> None:
    """parse_dirfile() and parse_dirplusfile() in fs/fuse/readdir.c."""
    head = wire.fuse_entry_out.size if plus else 0
    at = 0
    while at < len(body):
        require(at + head + _DIRENT.size <= len(body), "a directory entry that is cut off")
        _, _, length, _ = _DIRENT.unpack_from(body, at + head)
        name = body[at + head + _DIRENT.size :][:length]
        require(len(name) == length and 0 < length <= 1024, "a name that is cut off")
        require(b"/" not in name and b"\0" not in name, f"a name that is none: {name!r}")
        at += (head + _DIRENT.size + length + 7) // 8 * 8
    require(at == len(body), "padding is missing")


def request(data: bytes) -> None:
    """Any bytes, then the same with a true length: an answer that the kernel takes."""
    FILESYSTEM.calls.clear()
    for each in (data, with_true_length(data)):
        check_reply(each, SESSION.handle(memoryview(each)))
        if len(each) >= HEADER:
            check_refusal(each, Refuser().handle(memoryview(each)))


def check_refusal(data: bytes, reply: Reply) -> None:
    """Raise unless the refuser gives EIO, or nothing where nothing is due."""
    if reply is not None and wire.fuse_in_header.unpack(data)["unique"]:
        check_reply(data, reply)
        require(wire.fuse_out_header.unpack(whole(reply))["error"] < 0, "success")


def trace(data: bytes) -> None:
    """One line that may go to a log, whatever was asked and answered."""
    for each in (data, with_true_length(data)):
        view = memoryview(each)
        for line in (describe_request(view), describe_reply(view, SESSION.handle(view))):
            require(line.isprintable(), f"control characters in {line!r}")
            require(len(line) < _LONGEST_TRACE, f"a line of {len(line)} characters")
    FILESYSTEM.calls.clear()


def init(data: bytes) -> None:
    """INIT of any kernel: a reply that fits its version, a state that survives being stored."""
    for each in _as_init(data):
        agreed = attempt(negotiate, each, allowed=ProcscopeError)
        if agreed is None:
            continue
        reply, negotiated = agreed
        offer = wire.fuse_in_header.unpack(each)
        header = wire.fuse_out_header.unpack(reply)
        require(header["len"] == len(reply), "len")
        require(header["unique"] == offer["unique"], "unique")
        require(header["error"] == 0, "error")
        if negotiated is not None:
            require(negotiated.flags & ~negotiated.offered_flags == 0, "took what was not offered")
            require(ConnectionState.from_json(negotiated.to_json()) == negotiated, "state")


def _as_init(data: bytes) -> Iterator[bytes]:
    yield data
    if len(data) >= 8:
        fixed = struct.pack("=II", len(data), opcodes.FUSE_INIT) + data[8:]
        yield fixed
        yield fixed[:HEADER] + struct.pack("=I", 7) + fixed[HEADER + 4 :]


def connection_state(data: bytes) -> None:
    """A stored state is taken whole or refused with the one error."""
    text = data.decode("utf-8", "surrogateescape")
    known = attempt(ConnectionState.from_json, text, allowed=ProcscopeError)
    if known is not None:
        require(ConnectionState.from_json(known.to_json()) == known, "not the same again")
