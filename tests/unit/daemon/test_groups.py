"""Proves: requests of one container are one group, whoever sends them, and little is remembered."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.containers.container import Container, container_of_paths
from procscope.containers.identity import Identifier
from procscope.daemon import groups
from procscope.daemon.groups import Groups
from procscope.ids import CgroupPath, Pid
from tests.unit.containers.fakeproc import FakeProc

GOOD_FOR_NS = 50_000_000
CAPACITY = 512


def a_container(name: str) -> Container:
    found = container_of_paths({"": CgroupPath(f"/docker/{name}")})
    assert found is not None
    return found


class Finder:
    """Finds the container of a process in a table, and counts how often it is asked."""

    def __init__(self, places: Mapping[int, str]) -> None:
        self.places = dict(places)
        self.asked: list[int] = []

    def container_of(self, pid: Pid) -> Container | None:
        self.asked.append(pid)
        return a_container(self.places[pid]) if pid in self.places else None

    def tell_of_new_readers(self, tell: Callable[[Container], None]) -> None:
        """Nobody wants to know."""

    def sweep(self) -> bool:
        """Nothing is kept."""
        return False

    def close(self) -> None:
        """Nothing is open."""


class Clock:
    """What `Groups` takes for the monotonic clock."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000

    def monotonic_ns(self) -> int:
        return self.now_ns


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(groups, "time", clock)
    return clock


def group_of(known: Groups, pid: int) -> Hashable:
    return known.group_of(Pid(pid))


@given(places=st.dictionaries(st.integers(1, 500), st.sampled_from("abc")), pids=st.data())
def test_two_processes_are_of_one_group_where_they_are_in_one_container(
    places: dict[int, str], pids: st.DataObject
) -> None:
    """The host, which is in no container, is a group of its own."""
    known = Groups(Finder(places))
    asked = pids.draw(st.lists(st.integers(1, 500), max_size=10))
    for one in asked:
        for other in asked:
            same = places.get(one) == places.get(other)
            assert (group_of(known, one) == group_of(known, other)) == same


def test_a_group_is_that_of_the_readers_container_in_proc(tmp_path: Path) -> None:
    """Sub-cgroups of a container, and a process that has ended: with the workers' own finder."""
    proc = FakeProc(tmp_path / "proc")
    name = "0123456789abcdef" * 4
    proc.add(10, f"0::/docker/{name}\n")
    proc.add(11, f"0::/docker/{name}/inner\n")
    proc.add(12, "0::/user.slice\n")
    proc.add(13)
    identifier = Identifier(proc.path)
    known = Groups(identifier)
    try:
        assert group_of(known, 10) == group_of(known, 11)
        assert len({group_of(known, pid) for pid in (10, 12, 13)}) == 3
        assert group_of(known, 4711) == group_of(known, 13)
    finally:
        identifier.close()


def test_a_process_is_looked_for_once_as_long_as_the_answer_is_good(clock: Clock) -> None:
    finder = Finder({10: "a"})
    known = Groups(finder)
    for _ in range(3):
        group_of(known, 10)
        group_of(known, 11)
        clock.now_ns += GOOD_FOR_NS // 3
    assert finder.asked == [10, 11]


def test_a_process_that_has_moved_is_found_where_it_is_after_a_moment(clock: Clock) -> None:
    """Also a pid that is another process's now; and no use of the old answer prolongs it."""
    finder = Finder({10: "a", 11: "b"})
    known = Groups(finder)
    old, new = group_of(known, 10), group_of(known, 11)
    finder.places[10] = "b"
    for _ in range(4):
        clock.now_ns += GOOD_FOR_NS // 5
        assert group_of(known, 10) == old
    clock.now_ns += GOOD_FOR_NS // 5
    assert group_of(known, 10) == new


@pytest.mark.usefixtures("clock")
def test_any_number_of_short_lived_readers_is_one_group_in_bounded_memory() -> None:
    """A container that forks a reader for each read, and another that reads now and then."""
    many = range(100, 100 + 3 * CAPACITY)
    finder = Finder({1: "one"} | dict.fromkeys(many, "many"))
    known = Groups(finder)
    found: set[Hashable] = set()
    for pid in many:
        found.add(group_of(known, pid))
        assert group_of(known, 1) not in found
    assert len(found) == 1
    # Who asks all the time is forgotten with the rest, which costs one look for thousands.
    assert finder.asked.count(1) <= len(many) // CAPACITY + 1
    remembered = 0
    for pid in reversed(many):
        looked = len(finder.asked)
        group_of(known, pid)
        remembered += len(finder.asked) == looked
    assert 0 < remembered <= CAPACITY
