"""One line per request and one per reply, with a name for every opcode and flag."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Mapping
from typing import Final

from procscope.fuse import opcodes, wire
from procscope.fuse.opcodes import BY_OPCODE, Operation
from procscope.fuse.replies import Reply
from procscope.fuse.responder import RequestHandler
from procscope.fuse.wire import InitFlag

_BODY: Final = wire.fuse_in_header.size
_REPLY_BODY: Final = wire.fuse_out_header.size
_MOST_NAME_BYTES: Final = 256

# O_SYNC, O_TMPFILE and O_ACCMODE are more than one bit: the longer ones go first.
_OPEN_FLAGS: Final = {
    # Not in `os` on 64-bit machines; where this bit has a name there, that one is right.
    0o100000: "O_LARGEFILE",
    0x20: "FMODE_EXEC",
} | {
    getattr(os, name): name
    for name in (
        "O_TMPFILE", "O_SYNC", "O_WRONLY", "O_RDWR", "O_CREAT", "O_EXCL", "O_NOCTTY", "O_TRUNC",
        "O_APPEND", "O_NONBLOCK", "O_DSYNC", "O_ASYNC", "O_DIRECT", "O_DIRECTORY", "O_NOFOLLOW",
        "O_NOATIME", "O_CLOEXEC", "O_PATH",
    )
}  # fmt: skip
_FOPEN: Final = wire.flag_names("FOPEN_")
_ACCESS: Final = {os.R_OK: "R_OK", os.W_OK: "W_OK", os.X_OK: "X_OK"}
_INIT: Final = {flag.value: flag.name.removeprefix("FUSE_") for flag in InitFlag if flag.name}
_INIT_HIGH: Final = {bit >> 32: name for bit, name in _INIT.items() if bit >> 32}

_FLAGS: Final[Mapping[tuple[str, str], Mapping[int, str]]] = {
    ("fuse_open_in", "flags"): _OPEN_FLAGS,
    ("fuse_create_in", "flags"): _OPEN_FLAGS,
    ("fuse_read_in", "flags"): _OPEN_FLAGS,
    ("fuse_write_in", "flags"): _OPEN_FLAGS,
    ("fuse_release_in", "flags"): _OPEN_FLAGS,
    ("fuse_release_in", "release_flags"): wire.flag_names("FUSE_RELEASE_"),
    ("fuse_read_in", "read_flags"): wire.flag_names("FUSE_READ_"),
    ("fuse_getattr_in", "getattr_flags"): wire.flag_names("FUSE_GETATTR_"),
    ("fuse_setattr_in", "valid"): wire.flag_names("FATTR_"),
    ("fuse_access_in", "mask"): _ACCESS,
    ("fuse_open_out", "open_flags"): _FOPEN,
    ("fuse_init_in", "flags"): _INIT,
    ("fuse_init_in", "flags2"): _INIT_HIGH,
}
_OCTAL: Final = frozenset({"mode", "attr.mode", "umask"})


class Tracer:
    """Stands before a session and logs what goes through it, at level DEBUG."""

    def __init__(self, session: RequestHandler, log: logging.Logger) -> None:
        self._session = session
        self._log = log

    def handle(self, request: memoryview) -> Reply:
        """The session's reply, unchanged."""
        self._log.debug("-> %s", describe_request(request))
        reply = self._session.handle(request)
        self._log.debug("<- %s", describe_reply(request, reply))
        return reply


def describe_request(request: memoryview) -> str:
    """Opcode, caller, and every field of a request by name. Never raises."""
    if len(request) < _BODY:
        return f"{len(request)} bytes, less than a header"
    header = wire.fuse_in_header.unpack(request)
    operation = BY_OPCODE.get(header["opcode"])
    name = operation.name if operation else f"opcode {header['opcode']}"
    line = (
        f"{name} unique={_unique(header['unique'])} node={header['nodeid']}"
        f" pid={header['pid']} uid={header['uid']} gid={header['gid']}"
    )
    if operation is None:
        return f"{line} ({len(request) - _BODY} bytes)"
    return " ".join([line, *_body_words(operation, request[_BODY:])])


def describe_reply(request: memoryview, reply: Reply) -> str:
    """The errno by name, or the fields of a reply. Never raises."""
    if reply is None:
        return "no reply"
    whole = reply if isinstance(reply, bytes) else b"".join(reply)
    header = wire.fuse_out_header.unpack(whole)
    line = f"unique={_unique(header['unique'])}"
    if header["error"]:
        number = -header["error"]
        return f"{line} {errno.errorcode.get(number, number)}"
    operation = BY_OPCODE.get(wire.fuse_in_header.unpack(request)["opcode"])
    layout = operation.reply if operation else None
    if layout is None or len(whole) < _REPLY_BODY + layout.size:
        return f"{line} OK {len(whole) - _REPLY_BODY} bytes"
    words = _field_words(layout.name, layout.unpack(whole, _REPLY_BODY))
    return " ".join([line, "OK", *words])


def _unique(unique: int) -> str:
    plain = unique & ~wire.FUSE_UNIQUE_RESEND
    return f"{plain}(RESEND)" if unique != plain else str(plain)


def _body_words(operation: Operation, body: memoryview) -> list[str]:
    layout = operation.request
    if len(body) < operation.body_bytes:
        if operation.opcode == opcodes.FUSE_INIT and layout is not None:
            padded = bytes(body).ljust(layout.size, b"\0")
            return _field_words(layout.name, layout.unpack(padded))
        return [f"(cut off, {len(body)} bytes)"]
    words = _field_words(layout.name, layout.unpack(body)) if layout else []
    return words + _name_words(bytes(body[operation.body_bytes :]), operation.names)


def _field_words(layout: str, values: Mapping[str, int]) -> list[str]:
    return [f"{name}={_value(layout, name, value)}" for name, value in values.items()]


def _value(layout: str, name: str, value: int) -> str:
    table = _FLAGS.get((layout, name))
    if table is not None:
        return flags_text(value, table)
    return f"{value:#o}" if name in _OCTAL else str(value)


def _name_words(tail: bytes, count: int) -> list[str]:
    names = tail.split(b"\0")[:count]
    return [repr(os.fsdecode(name[:_MOST_NAME_BYTES])) for name in names if name]


def flags_text(value: int, table: Mapping[int, str]) -> str:
    """`A|B|0x80`: the names of the bits that are set, and what has no name in hexadecimal."""
    words = []
    for bits, name in table.items():
        if value & bits == bits:
            words.append(name)
            value &= ~bits
    if value or not words:
        words.append(f"{value:#x}")
    return "|".join(words)
