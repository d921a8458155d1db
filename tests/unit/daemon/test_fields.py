"""Proves that a packet's fields come out as they went in, and that anything else is refused."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.daemon import fields

NAMES = st.from_regex(r"[a-z]+", fullmatch=True)
PATHS = st.binary(max_size=80).map(lambda raw: os.fsdecode(raw.replace(b"\0", b"")))


@given(st.lists(st.tuples(NAMES, PATHS), min_size=1, max_size=8))
def test_what_is_said_is_understood(said: list[tuple[str, str]]) -> None:
    """Paths are any bytes but NUL; a name may come more than once, and its order is kept."""
    heard = fields.unpack(fields.pack(said))
    assert heard == tuple(said)
    for name, _ in said:
        assert fields.every(heard, name) == [text for one, text in said if one == name]
        assert fields.first(heard, name) == dict(reversed(said))[name]
    assert fields.first(heard, "NONE") is None


@pytest.mark.parametrize("packet", [b"", b"\0", b"name", b"=text", b"name=text\0", b'{"a": 1}'])
def test_what_has_no_names_is_refused(packet: bytes) -> None:
    with pytest.raises(ValueError, match="without a name"):
        fields.unpack(packet)


@given(st.binary(max_size=200))
def test_any_packet_is_understood_or_refused(packet: bytes) -> None:
    try:
        heard = fields.unpack(packet)
    except ValueError:
        return
    assert fields.pack(heard) == packet
