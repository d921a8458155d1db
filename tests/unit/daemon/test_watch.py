"""Proves when a worker counts as hung: the same request for longer than the deadline."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from procscope.daemon.slots import RequestSlot
from procscope.daemon.watch import DeadlineWatch
from procscope.fuse import opcodes
from tests.unit.fuse.memory import request


def put(slot: RequestSlot, unique: int) -> None:
    """A request has come, or with 0 the last one is answered."""
    content = bytes(request(opcodes.FUSE_STATFS, unique=unique)) if unique else bytes(4)
    slot.buffer[: len(content)] = content


@given(
    looks=st.lists(st.tuples(st.integers(0, 2), st.floats(0.01, 3.0)), max_size=30),
    deadline_s=st.floats(0.5, 5.0),
)
def test_only_a_request_that_stays_is_overdue(
    looks: list[tuple[int, float]], deadline_s: float
) -> None:
    slot = RequestSlot()
    watch = DeadlineWatch(slot, deadline_s)
    now_s, seen_at_s, last = 100.0, 100.0, 0
    for unique, passed_s in looks:
        now_s += passed_s
        put(slot, unique)
        if unique != last:
            last, seen_at_s = unique, now_s
        assert watch.overdue(now_s) == (unique != 0 and now_s - seen_at_s > deadline_s)


def test_a_successor_has_the_whole_deadline_for_what_is_left() -> None:
    slot = RequestSlot()
    watch = DeadlineWatch(slot, 2.0)
    put(slot, 7)
    assert [watch.overdue(now_s) for now_s in (1.0, 2.0, 3.5)] == [False, False, True]
    watch.start_over()
    assert [watch.overdue(now_s) for now_s in (3.6, 5.5, 5.7)] == [False, False, True]
