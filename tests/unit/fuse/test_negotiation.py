"""Proves what is agreed with kernels of all ages, and that the agreement survives storage."""

from __future__ import annotations

import json
import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.errors import ProcscopeError
from procscope.fuse import opcodes, wire
from procscope.fuse.negotiation import ConnectionState, negotiate
from procscope.fuse.wire import InitFlag
from tests.unit.fuse.memory import UNIQUE, init_request, payload, request

# INIT as captured from Linux 6.18, and as laid out by the protocol 7.22 of Linux 3.10.
LINUX_6_18 = bytes.fromhex(
    "68000000 1a000000 0200000000000000 0000000000000000 00000000 00000000 00000000 00000000"
    "07000000 2d000000 00000200 fbffff73 fd050000" + "00" * 44
)
LINUX_3_10 = bytes.fromhex(
    "38000000 1a000000 0100000000000000 0000000000000000 00000000 00000000 00000000 00000000"
    "07000000 16000000 00000200 7bf80000"
)


def _agree(
    request_bytes: bytes | memoryview, *, idmapped: bool = False
) -> tuple[dict[str, int], ConnectionState]:
    reply, state = negotiate(request_bytes, idmapped=idmapped)
    assert state is not None
    unique = wire.fuse_in_header.unpack(request_bytes)["unique"]
    return wire.fuse_init_out.unpack(payload(reply, unique).ljust(64, b"\0")), state


def test_a_new_kernel_gets_all_that_is_wanted() -> None:
    """The flags in both words, the sizes, and our minor version where it is the smaller."""
    out, state = _agree(LINUX_6_18)
    assert (out["major"], out["minor"], out["max_write"]) == (7, 41, 4096)
    assert out["max_readahead"] == 131072
    assert out["flags"] | out["flags2"] << 32 == state.flags
    for name in ("HAS_RESEND", "INIT_EXT", "MAX_PAGES", "DO_READDIRPLUS"):
        assert state.has(InitFlag["FUSE_" + name]), name
    for name in ("NO_OPEN_SUPPORT", "WRITEBACK_CACHE", "ATOMIC_O_TRUNC", "ALLOW_IDMAP"):
        assert not state.has(InitFlag["FUSE_" + name]), name
    assert state.offered_flags & InitFlag.FUSE_NO_OPEN_SUPPORT
    assert state.max_read_bytes == 1 << 20


def test_idmapped_mounts_are_allowed_where_the_kernel_checks_permissions() -> None:
    """It refuses a reply that allows them on a mount without `default_permissions`."""
    _, state = _agree(LINUX_6_18, idmapped=True)
    assert state.has(InitFlag.FUSE_ALLOW_IDMAP)
    _, old = _agree(LINUX_3_10, idmapped=True)
    assert not old.has(InitFlag.FUSE_ALLOW_IDMAP)


def test_an_old_kernel_gets_the_short_reply_that_it_understands() -> None:
    """7.22: no time_gran, no second flag word, no more than 24 bytes."""
    reply, state = negotiate(LINUX_3_10)
    assert len(payload(reply, 1)) == wire.FUSE_COMPAT_22_INIT_OUT_SIZE
    assert state is not None
    assert state.minor == 22
    assert not state.has(InitFlag.FUSE_MAX_PAGES)
    assert state.max_read_bytes == 32 * resource.getpagesize()


@given(st.integers(0, (1 << 64) - 1), st.integers(12, 60))
def test_nothing_is_taken_that_was_not_offered(flags: int, minor: int) -> None:
    """Without FUSE_INIT_EXT the second flag word does not count, whatever is in it."""
    out, state = _agree(init_request(flags=flags, minor=minor))
    offered = flags if flags & InitFlag.FUSE_INIT_EXT else flags & 0xFFFFFFFF
    assert state.flags & ~offered == 0
    assert state.offered_flags == offered
    assert out["minor"] == state.minor <= minor


def test_a_newer_major_is_told_ours_and_sends_init_again() -> None:
    """<linux/fuse.h>, "Version negotiation"."""
    reply, state = negotiate(init_request(major=8, minor=0))
    assert state is None
    assert wire.fuse_init_out.unpack(payload(reply))["major"] == 7


@pytest.mark.parametrize(("major", "minor"), [(7, 11), (6, 99), (7, 0)])
def test_a_kernel_that_is_too_old_is_named(major: int, minor: int) -> None:
    """The error says what the kernel speaks and what is needed."""
    with pytest.raises(ProcscopeError, match=rf"FUSE {major}\.{minor}: .*7\.12"):
        negotiate(init_request(major=major, minor=minor))


def test_what_is_no_init_is_named() -> None:
    """A connection that somebody else has begun to serve."""
    with pytest.raises(ProcscopeError, match="opcode 3, not INIT"):
        negotiate(request(opcodes.FUSE_GETATTR, bytes(16)))


@given(st.binary(max_size=120))
def test_any_bytes_give_a_reply_or_one_error(junk: bytes) -> None:
    """Nothing but ProcscopeError comes out."""
    try:
        reply, _ = negotiate(junk)
    except ProcscopeError:
        return
    assert wire.fuse_out_header.unpack(reply)["len"] == len(reply)


@given(st.integers(0, (1 << 64) - 1), st.integers(12, 60), st.integers(0, (1 << 32) - 1))
def test_the_state_survives_json(flags: int, minor: int, readahead: int) -> None:
    """A process that takes the connection over knows exactly what was agreed."""
    _, state = _agree(init_request(flags=flags, minor=minor, max_readahead=readahead))
    assert ConnectionState.from_json(state.to_json()) == state


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"version": 1}', '{"version": 2}', "null", "[" * 100_000, '"x"', "{\0}"],
)
def test_a_state_that_is_none_is_refused(text: str) -> None:
    """Each with a line that says to mount again."""
    with pytest.raises(ProcscopeError, match="unmount and mount again"):
        ConnectionState.from_json(text)


@given(
    st.sampled_from(["version", "minor", "flags", "max_read_bytes"]),
    st.none() | st.booleans() | st.text() | st.floats() | st.integers(max_value=-1),
)
def test_a_state_with_a_wrong_value_is_refused(name: str, value: object) -> None:
    """true is no number, and nothing is negative."""
    stored = json.loads(_agree(LINUX_6_18)[1].to_json())
    with pytest.raises(ProcscopeError):
        ConnectionState.from_json(json.dumps(stored | {name: value}))


def test_unique_is_echoed() -> None:
    """The kernel finds the request that a reply belongs to by it."""
    reply, _ = negotiate(init_request())
    assert wire.fuse_out_header.unpack(reply)["unique"] == UNIQUE
