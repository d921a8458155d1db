"""Proves when one worker takes requests in the place of those before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from procscope.daemon.relief import Relief
from procscope.daemon.slots import SlotMemory, WorkerSlots
from procscope.ids import CpuId

MANY = 12


@pytest.fixture
def before() -> Iterator[list[WorkerSlots]]:
    """The slots of two workers, each of which has answered a request."""
    with closing(SlotMemory.create(2)) as memory:
        workers = [memory.worker(index) for index in range(2)]
        for slots in workers:
            answer(slots)
        yield workers


def answer(slots: WorkerSlots) -> None:
    slots.prepare(0)
    slots.begin(0)
    slots.end(0)


def test_where_none_begins_anything_it_is_due(before: list[WorkerSlots]) -> None:
    relief = Relief(before)
    relief.look()
    assert relief.is_due()
    assert relief.is_due(), "and stays so"


@pytest.mark.parametrize("alive", [0, 1])
def test_one_that_works_is_enough(before: list[WorkerSlots], alive: int) -> None:
    """Also where another one is stuck."""
    relief = Relief(before)
    relief.look()
    before[alive].begin(0)
    assert not relief.is_due()
    relief.look()
    assert relief.is_due(), "it has begun nothing since"


def test_where_many_wait_for_each_it_is_due(before: list[WorkerSlots]) -> None:
    relief = Relief(before)
    relief.look()
    for slots in before:
        assert not answered_beside(relief, before[0])
        slots.queued(MANY)
    assert answered_beside(relief, before[0])
    assert not relief.is_stuck(), "they work"
    before[1].queued(MANY - 1)
    assert not answered_beside(relief, before[0])


def test_where_one_follows_its_reader_it_is_best_left_alone(before: list[WorkerSlots]) -> None:
    relief = Relief(before)
    assert not relief.may_rest_long()
    before[1].set_following(CpuId(0))
    assert relief.may_rest_long()
    before[1].set_following(None)
    assert not relief.may_rest_long()


def answered_beside(relief: Relief, slots: WorkerSlots) -> bool:
    """Whether it is due while that one works."""
    answer(slots)
    return relief.is_due()
