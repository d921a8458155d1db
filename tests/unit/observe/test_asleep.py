"""Proves: tasks count as asleep only as long as their CPU time says so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.observe import asleep
from procscope.observe.asleep import OF_READERS_NS, sleep_still

_NS = st.integers(0, 2**64 - 1)


@given(st.none() | _NS)
def test_round_trip(slept_at_ns: int | None) -> None:
    assert asleep.from_bytes(asleep.to_bytes(slept_at_ns)) == slept_at_ns


@given(st.none() | st.binary(max_size=20))
def test_what_is_not_known_is_not_asleep(block: bytes | None) -> None:
    found = asleep.from_bytes(block)
    assert found is None or (block is not None and found == int.from_bytes(block[2:], "little"))


@pytest.mark.parametrize(
    ("slept_at_ns", "now_ns", "still"),
    [
        (7, 7, True),
        (7, 7 + OF_READERS_NS - 1, True),
        (7, 7 + OF_READERS_NS, False),
        (8, 7, False),
        (None, 7, False),
        (7, None, False),
    ],
)
def test_who_has_used_more_than_a_reader_does_may_run(
    slept_at_ns: int | None, now_ns: int | None, still: bool
) -> None:
    assert sleep_still(slept_at_ns, now_ns) is still
