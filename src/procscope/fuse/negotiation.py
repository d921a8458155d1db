"""INIT: what the kernel offers, what is taken, and the result that outlives the process.

The rules of the exchange stand in <linux/fuse.h> under "Version negotiation"; the kernel's side is
process_init_reply() in fs/fuse/inode.c.
"""

from __future__ import annotations

import json
import resource
from typing import Final

from procscope.errors import ProcscopeError
from procscope.fuse import wire
from procscope.fuse.opcodes import FUSE_INIT
from procscope.fuse.wire import InitFlag
from procscope.values import as_dict, frozen, names_of

STATE_VERSION: Final = 1

OLDEST_MINOR: Final = 12
"""7.12 (Linux 2.6.31): every struct that is read here has had its present layout since then."""
OUR_MINOR: Final = 41
"""The newest protocol of which something is used here: FUSE_ALLOW_IDMAP."""
_MINOR_OF_LONG_INIT_OUT: Final = 23

MAX_WRITE_BYTES: Final = 4096
"""The least the kernel accepts: nothing is ever written, and it bounds the size of a request."""
MAX_READ_BYTES: Final = 1 << 20
_OLD_MAX_READ_BYTES: Final = 32 * resource.getpagesize()
"""FUSE_DEFAULT_MAX_PAGES_PER_REQ, where FUSE_MAX_PAGES (Linux 4.20) is not offered."""

# RELEASE is a background request: with the kernel's default of 12, releases would queue up behind
# each other when many files are closed at once.
_MAX_BACKGROUND: Final = 64
_CONGESTION_THRESHOLD: Final = 48

WANTED: Final = (
    # A changed mtime or size drops the cached pages of a file that is not FOPEN_DIRECT_IO.
    InitFlag.FUSE_AUTO_INVAL_DATA
    | InitFlag.FUSE_DO_READDIRPLUS
    | InitFlag.FUSE_READDIRPLUS_AUTO
    | InitFlag.FUSE_PARALLEL_DIROPS
    | InitFlag.FUSE_MAX_PAGES
    | InitFlag.FUSE_CACHE_SYMLINKS
    | InitFlag.FUSE_INIT_EXT
    # Linux 6.9: requests that a killed worker had read can be asked for again.
    | InitFlag.FUSE_HAS_RESEND
)
"""Taken where offered. FUSE_NO_OPEN_SUPPORT and FUSE_NO_OPENDIR_SUPPORT only announce what the
kernel does with ENOSYS to OPEN; they are not taken, and OPEN is never answered so."""
WANTED_WITHOUT_OPEN: Final = InitFlag(
    WANTED
    # A link leads each reader somewhere else, and an entry's attributes cost a rendering.
    & ~InitFlag.FUSE_CACHE_SYMLINKS
    & ~InitFlag.FUSE_DO_READDIRPLUS
    & ~InitFlag.FUSE_READDIRPLUS_AUTO
    | InitFlag.FUSE_NO_OPEN_SUPPORT
)
"""The same for a connection on which OPEN is answered ENOSYS."""

_IDMAPPED: Final = InitFlag.FUSE_ALLOW_IDMAP
"""Linux 6.12: containers in a user namespace get idmapped bind mounts. Needs the mount option
default_permissions, without which the kernel refuses the reply."""


@frozen
class ConnectionState:
    """What was agreed on a connection; a process that takes it over needs nothing else.

    `minor` is the smaller of both sides', `flags` are those that both sides set (InitFlag),
    `offered_flags` all of the kernel's. `max_read_bytes` is the most that one READ asks for.
    """

    major: int
    minor: int
    flags: int
    offered_flags: int
    max_write_bytes: int
    max_read_bytes: int
    max_readahead_bytes: int
    time_gran_ns: int

    def has(self, flag: InitFlag) -> bool:
        """Whether both sides set `flag`."""
        return bool(self.flags & flag)

    def to_json(self) -> str:
        """One line of JSON, for `from_json` of this or a later release."""
        return json.dumps({"version": STATE_VERSION, **as_dict(self)})

    @classmethod
    def from_json(cls, text: str) -> ConnectionState:
        """The state that `to_json` wrote; ProcscopeError where it is something else."""
        try:
            stored = json.loads(text)
        except (ValueError, RecursionError):
            raise _unusable("it is not JSON") from None
        if not isinstance(stored, dict):
            raise _unusable("it is not a JSON object")
        version = stored.get("version")
        if type(version) is not int or version != STATE_VERSION:
            raise _unusable(f"its version is {version!r}, not {STATE_VERSION}")
        values: dict[str, int] = {}
        for name in names_of(cls):
            value = stored.get(name)
            if type(value) is not int or value < 0:
                raise _unusable(f"{name} is {value!r}")
            values[name] = value
        return cls(**values)


def _unusable(why: str) -> ProcscopeError:
    return ProcscopeError(
        f"the stored state of the FUSE connection cannot be used, {why}",
        hint="unmount and mount again",
    )


def negotiate(
    request: bytes | memoryview, wanted: InitFlag = WANTED, *, idmapped: bool = False
) -> tuple[bytes, ConnectionState | None]:
    """The reply to an INIT request, and what was agreed of `wanted`; `idmapped` as it was mounted.

    The state is None where the kernel speaks a newer major version: it answers the reply with a
    second INIT of ours. Raises ProcscopeError where the request is no INIT or the kernel too old.
    """
    unique = _unique_of_init(request)
    body = request[wire.fuse_in_header.size :]
    offer = wire.fuse_init_in.unpack(bytes(body).ljust(wire.fuse_init_in.size, b"\0"))
    major, minor = offer["major"], offer["minor"]
    if major > wire.FUSE_KERNEL_VERSION:
        return _reply(unique, wire.fuse_init_out.pack(major=wire.FUSE_KERNEL_VERSION)), None
    if major < wire.FUSE_KERNEL_VERSION or minor < OLDEST_MINOR:
        raise ProcscopeError(
            f"this kernel speaks FUSE {major}.{minor}",
            hint=f"procscope needs FUSE 7.{OLDEST_MINOR} (Linux 2.6.31) or newer",
        )
    wanted = wanted | _IDMAPPED if idmapped else wanted
    state = _agree(minor, _flags_of(offer), int(wanted), offer["max_readahead"])
    return _reply(unique, _init_out(state)), state


def _unique_of_init(request: bytes | memoryview) -> int:
    """`unique` of an INIT request that is whole at least up to its flags."""
    if len(request) < wire.fuse_in_header.size + wire.FUSE_COMPAT_INIT_IN_SIZE:
        raise ProcscopeError(f"the kernel's FUSE INIT has only {len(request)} bytes")
    header = wire.fuse_in_header.unpack(request)
    if header["opcode"] != FUSE_INIT:
        raise ProcscopeError(
            f"the first request on the FUSE connection is opcode {header['opcode']}, not INIT",
            hint="the connection is in use already; unmount and mount again",
        )
    return header["unique"]


def _flags_of(offer: dict[str, int]) -> int:
    flags = offer["flags"]
    if flags & InitFlag.FUSE_INIT_EXT:
        flags |= offer["flags2"] << 32
    return flags


def _agree(minor: int, offered: int, wanted: int, max_readahead_bytes: int) -> ConnectionState:
    flags = offered & wanted
    whole_reads = flags & InitFlag.FUSE_MAX_PAGES
    return ConnectionState(
        major=wire.FUSE_KERNEL_VERSION,
        minor=min(minor, OUR_MINOR),
        flags=flags,
        offered_flags=offered,
        max_write_bytes=MAX_WRITE_BYTES,
        max_read_bytes=MAX_READ_BYTES if whole_reads else _OLD_MAX_READ_BYTES,
        max_readahead_bytes=max_readahead_bytes,
        time_gran_ns=1,
    )


def _init_out(state: ConnectionState) -> bytes:
    out = wire.fuse_init_out.pack(
        major=state.major,
        minor=state.minor,
        max_readahead=state.max_readahead_bytes,
        flags=state.flags & 0xFFFFFFFF,
        max_background=_MAX_BACKGROUND,
        congestion_threshold=_CONGESTION_THRESHOLD,
        max_write=state.max_write_bytes,
        time_gran=state.time_gran_ns,
        max_pages=max(1, MAX_READ_BYTES // resource.getpagesize()),
        flags2=state.flags >> 32,
    )
    # A kernel takes a reply that is shorter than its struct, never one that is longer.
    return (
        out[: wire.FUSE_COMPAT_22_INIT_OUT_SIZE] if state.minor < _MINOR_OF_LONG_INIT_OUT else out
    )


def _reply(unique: int, payload: bytes) -> bytes:
    size = wire.fuse_out_header.size + len(payload)
    return wire.fuse_out_header.pack(len=size, unique=unique) + payload
