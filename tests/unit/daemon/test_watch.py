"""Proves when a worker counts as hung: requests wait, and none is answered within the deadline."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.daemon.slots import SlotMemory, WorkerSlots
from procscope.daemon.watch import LOOK_EVERY_S, DeadlineWatch
from procscope.fuse import opcodes
from tests.unit.fuse.memory import request

DEADLINE_S = 2.0


@pytest.fixture
def slots() -> Iterator[WorkerSlots]:
    memory = SlotMemory.create(1)
    yield memory.worker(0)
    memory.close()


def read_into(slots: WorkerSlots, index: int) -> None:
    """What the kernel does."""
    content = request(opcodes.FUSE_STATFS)
    slots.prepare(index)
    slots.buffers[index][: len(content)] = content


def overdue_at(watch: DeadlineWatch, *times_s: float) -> list[bool]:
    return [watch.overdue(now_s) for now_s in times_s]


@given(
    looks=st.lists(
        st.tuples(st.sampled_from(("arrive", "answer", "nothing")), st.floats(0.01, 3.0)),
        max_size=30,
    ),
    deadline_s=st.floats(0.5, 5.0),
)
def test_only_without_an_answer_to_what_waits_it_is_overdue(
    looks: list[tuple[str, float]], deadline_s: float
) -> None:
    memory = SlotMemory.create(1)
    slots = memory.worker(0)
    watch = DeadlineWatch(slots, deadline_s)
    waiting = 0
    now_s = since_s = 100.0
    watch.overdue(now_s)
    for event, passed_s in looks:
        now_s += passed_s
        if event == "arrive" and waiting < 9:
            read_into(slots, waiting)
            since_s = now_s if not waiting else since_s
            waiting += 1
        elif event == "answer" and waiting:
            waiting -= 1
            slots.begin(waiting)
            slots.end(waiting)
            since_s = now_s
        assert watch.overdue(now_s) == (waiting > 0 and now_s - since_s > deadline_s)
    memory.close()


def test_a_request_that_was_never_begun_counts_from_the_look_that_finds_it(
    slots: WorkerSlots,
) -> None:
    """A worker was stopped just after it had read."""
    watch = DeadlineWatch(slots, DEADLINE_S)
    assert overdue_at(watch, 1.0, 9.0) == [False, False]
    read_into(slots, 0)
    assert overdue_at(watch, 9.2, 11.1, 11.3) == [False, False, True]


@pytest.mark.parametrize(("deadline_s", "idle_s"), [(2.0, 2.0), (60.0, 2.0), (0.5, 0.5)])
def test_looks_are_frequent_while_a_request_waits(
    slots: WorkerSlots, deadline_s: float, idle_s: float
) -> None:
    watch = DeadlineWatch(slots, deadline_s)
    assert not watch.overdue(1.0)
    assert watch.next_look_s() == idle_s
    read_into(slots, 0)
    assert not watch.overdue(1.1)
    assert watch.next_look_s() == LOOK_EVERY_S
    slots.begin(0)
    slots.end(0)
    assert not watch.overdue(1.2)
    assert watch.next_look_s() == idle_s


def test_a_request_counts_from_the_moment_in_which_it_was_begun(
    slots: WorkerSlots, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = DeadlineWatch(slots, DEADLINE_S)
    assert overdue_at(watch, 9.0) == [False]
    read_into(slots, 0)
    monkeypatch.setattr("procscope.daemon.slots._monotonic_ns", lambda: 9_010_000_000)
    slots.begin(0)
    assert overdue_at(watch, 9.2, 11.0, 11.02) == [False, False, True]


def test_a_successor_has_the_whole_deadline_for_what_is_left(slots: WorkerSlots) -> None:
    watch = DeadlineWatch(slots, DEADLINE_S)
    read_into(slots, 0)
    slots.begin(0)
    assert overdue_at(watch, 1e9, 1e9 + 1, 1e9 + 3) == [False, False, True]
    watch.start_over()
    assert overdue_at(watch, 1e9 + 3.1, 1e9 + 5, 1e9 + 5.2) == [False, False, True]


@pytest.mark.parametrize("deadline_s", [0.5, 2.0, 60.0])
@pytest.mark.parametrize("after_look_s", [0.0, 0.01, 0.49])
def test_though_it_looks_rarely_no_request_hangs_for_longer(
    slots: WorkerSlots, monkeypatch: pytest.MonkeyPatch, deadline_s: float, after_look_s: float
) -> None:
    """It was begun just after a look that found nothing."""
    watch = DeadlineWatch(slots, deadline_s)
    now_s = begun_s = 1000.0
    assert not watch.overdue(now_s)
    begun_s += after_look_s
    monkeypatch.setattr("procscope.daemon.slots._monotonic_ns", lambda: int(begun_s * 1e9))
    now_s += watch.next_look_s()
    read_into(slots, 0)
    slots.begin(0)
    while not watch.overdue(now_s):
        now_s += watch.next_look_s()
    assert deadline_s < now_s - begun_s <= deadline_s + 2 * LOOK_EVERY_S
