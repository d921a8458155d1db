"""Proves that turns are fair: nobody waits for more than one request of each other group."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.fuse.turns import Turns

GROUPS = st.sampled_from(("a", "b", "c", None))
EVENTS = st.lists(GROUPS | st.just("next"), max_size=200)


@given(EVENTS)
def test_each_group_gets_one_turn_in_a_round(events: list[str | None]) -> None:
    """Nothing is lost, nothing comes twice, and each group keeps its order."""
    turns: Turns[tuple[str | None, int]] = Turns()
    waiting: list[tuple[str | None, int]] = []
    passed: dict[str | None, Counter[str | None]] = {}
    for number, event in enumerate(events + ["next"] * len(events)):
        if event != "next":
            turns.add(event, (event, number))
            waiting.append((event, number))
            passed.setdefault(event, Counter())
            continue
        if not turns:
            assert waiting == []
            continue
        item = turns.next()
        assert item == next(one for one in waiting if one[0] == item[0])
        waiting.remove(item)
        # Whoever is the first of its group is passed by each other group once at most.
        del passed[item[0]]
        for group, others in passed.items():
            others[item[0]] += 1
            assert others[item[0]] <= 1, f"{group} waits for a second request of {item[0]}"
        if any(group == item[0] for group, _ in waiting):
            passed[item[0]] = Counter()
    assert waiting == []


def test_one_request_passes_the_many_of_another_group() -> None:
    turns: Turns[str] = Turns()
    for number in range(64):
        turns.add("many", f"many {number}")
    turns.add("one", "one")
    assert [turns.next() for _ in range(3)] == ["many 0", "one", "many 1"]


@given(st.lists(GROUPS, max_size=20), st.integers(0, 5))
def test_a_round_is_one_of_each_group(groups: list[str | None], most: int) -> None:
    """Of the first `most` groups, in the order in which they would have had their turns."""
    turns, same = Turns[tuple[str | None, int]](), Turns[tuple[str | None, int]]()
    for number, group in enumerate(groups):
        turns.add(group, (group, number))
        same.add(group, (group, number))
    items = turns.round(most)
    assert len(items) == len({group for group, _ in items}) == min(most, len(set(groups)))
    assert items == [same.next() for _ in items]


def test_without_anything_there_is_no_turn() -> None:
    with pytest.raises(LookupError):
        Turns[int]().next()
