"""Proves: a rendering is given out again only while it is young, its own, and the newest."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from procscope.daemon.handlelayout import SlotClass
from procscope.daemon.handles import HandleStore
from procscope.daemon.recent import TABLE_BYTES, RecentRenderings

LONG_NS = 10**18
WORKERS = 3
SECRET = b"s" * 16


class Clock:
    """Moves only when it is told to."""

    def __init__(self) -> None:
        self.now_ns = 1000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic_ns", lambda: clock.now_ns)
    return clock


@pytest.fixture
def renderings() -> Iterator[RecentRenderings]:
    with closing(new_table()) as one:
        yield one


def new_table() -> RecentRenderings:
    return RecentRenderings(memoryview(bytearray(WORKERS * TABLE_BYTES)), SECRET)


@pytest.mark.parametrize("length", [0, 1, 4096, 64 << 10])
def test_what_one_worker_notes_every_worker_finds(
    renderings: RecentRenderings, length: int
) -> None:
    content = os.urandom(length)
    assert renderings.get("a/meminfo", LONG_NS) is None
    renderings.note(1, "a/meminfo", content, time.monotonic_ns())
    assert renderings.get("a/meminfo", LONG_NS) == content
    assert renderings.get("a/stat", LONG_NS) is None
    assert renderings.get("b/meminfo", LONG_NS) is None


def test_it_is_used_for_so_long_from_its_beginning(
    renderings: RecentRenderings, clock: Clock
) -> None:
    renderings.note(0, "a", b"x", clock.now_ns)
    clock.now_ns += 3
    assert renderings.get("a", 3) == b"x"
    assert renderings.get("a", 2) is None


def test_what_is_too_large_is_not_kept_and_hides_what_was(renderings: RecentRenderings) -> None:
    renderings.note(0, "a", b"x", time.monotonic_ns())
    renderings.note(0, "a", bytes((64 << 10) + 1), time.monotonic_ns())
    assert renderings.get("a", LONG_NS) is None


def test_of_two_that_overlap_neither_is_used(renderings: RecentRenderings, clock: Clock) -> None:
    """Nobody can say which is newer, and both have been given out."""
    clock.now_ns = 2000
    renderings.note(0, "a", b"one", 1000)
    clock.now_ns = 2500
    renderings.note(1, "a", b"other", 1500)
    assert renderings.get("a", LONG_NS) is None
    clock.now_ns = 2700
    renderings.note(0, "a", b"third", 2600)
    assert renderings.get("a", LONG_NS) == b"third"


def test_one_that_is_noted_late_does_not_hide_a_newer_one(
    renderings: RecentRenderings, clock: Clock
) -> None:
    """The worker was interrupted in the middle: its rendering is never given out again."""
    clock.now_ns = 3000
    renderings.note(0, "a", b"newer", 2900)
    clock.now_ns = 3001
    renderings.note(1, "a", b"late", 1000)
    assert renderings.get("a", LONG_NS) is None


def test_a_writer_that_died_in_the_middle_is_not_believed(renderings: RecentRenderings) -> None:
    renderings.note(0, "a", b"x", time.monotonic_ns())
    header = (renderings._key("a")[0] % 64) * 8
    renderings._words[header] += 1
    assert renderings.get("a", LONG_NS) is None
    renderings.note(0, "a", b"y", time.monotonic_ns())
    assert renderings.get("a", LONG_NS) == b"y"


@pytest.fixture
def workers() -> Iterator[list[RecentRenderings]]:
    """What each worker has of the same tables."""
    memory = memoryview(bytearray(WORKERS * TABLE_BYTES))
    workers = [RecentRenderings(memory[:], SECRET) for _ in range(WORKERS)]
    yield workers
    for one in workers:
        one.close()


def test_what_a_worker_gives_out_again_is_copied_once(workers: list[RecentRenderings]) -> None:
    mine, other = workers[0], workers[1]
    content = os.urandom(100)
    mine.note(0, "a", content, time.monotonic_ns())
    assert mine.get("a", LONG_NS) is content
    copied = other.get("a", LONG_NS)
    assert copied == content
    assert other.get("a", LONG_NS) is copied


@pytest.mark.parametrize("length", [5, 16 << 10, (16 << 10) + 1, 64 << 10])
def test_what_another_worker_has_given_out_since_is_found(
    workers: list[RecentRenderings], clock: Clock, length: int
) -> None:
    older, newer = os.urandom(length), os.urandom(length)
    mine, other = workers[0], workers[1]
    mine.note(0, "a", older, 900)
    assert mine.get("a", LONG_NS) == other.get("a", LONG_NS) == older
    clock.now_ns = 3000
    other.note(1, "a", newer, 2000)
    assert mine.get("a", LONG_NS) == other.get("a", LONG_NS) == newer
    clock.now_ns = 5000
    mine.note(0, "a", older, 2900)
    assert [one.get("a", LONG_NS) for one in workers] == [None] * WORKERS


def test_what_is_too_old_at_hand_is_found_anew_from_another_worker(
    workers: list[RecentRenderings], clock: Clock
) -> None:
    workers[0].note(0, "a", b"older", 900)
    clock.now_ns = 3000
    assert workers[0].get("a", 2100) == b"older"
    assert workers[0].get("a", 2099) is None
    workers[1].note(1, "a", b"newer", 2500)
    assert workers[0].get("a", 500) == b"newer"


def test_another_that_takes_the_place_takes_it_from_all(workers: list[RecentRenderings]) -> None:
    mine, other = workers[0], workers[1]
    place = mine._key("a")[0] % 64
    rival = next(name for name in map(str, range(10_000)) if mine._key(name)[0] % 64 == place)
    mine.note(0, "a", b"content", time.monotonic_ns())
    assert mine.get("a", LONG_NS) == b"content"
    other.note(1, rival, b"of the rival", time.monotonic_ns())
    assert mine.get("a", LONG_NS) is None
    assert mine.get(rival, LONG_NS) == b"of the rival"
    mine.note(0, "a", b"again", time.monotonic_ns())
    assert other.get(rival, LONG_NS) is None
    assert other.get("a", LONG_NS) == b"again"


def test_what_a_worker_that_died_was_writing_is_not_believed_at_hand(
    workers: list[RecentRenderings],
) -> None:
    workers[0].note(0, "a", b"content", time.monotonic_ns())
    assert workers[0].get("a", LONG_NS) == workers[1].get("a", LONG_NS) == b"content"
    workers[0]._words[workers[0]._key("a")[0] % 64 * 8] += 1
    assert workers[0].get("a", LONG_NS) is None
    assert workers[1].get("a", LONG_NS) is None


def test_more_are_given_out_than_are_at_hand(workers: list[RecentRenderings]) -> None:
    one = workers[0]
    by_place = {one._key(str(number))[0] % 64: str(number) for number in range(400)}
    assert len(by_place) > 50
    for name in by_place.values():
        one.note(0, name, name.encode(), time.monotonic_ns())
    for name in by_place.values():
        assert one.get(name, LONG_NS) == name.encode()


@given(garbage=st.binary(min_size=1, max_size=64), at=st.integers(0, 63))
def test_garbage_is_nothing(garbage: bytes, at: int) -> None:
    """In the headers: no error, and no content but the one that was noted with this name."""
    memory = bytearray(WORKERS * TABLE_BYTES)
    one = RecentRenderings(memoryview(memory), SECRET)
    one.note(0, "a", b"content", time.monotonic_ns())
    header = (one._key("a")[0] % 64) * 64
    for offset, byte in enumerate(garbage[: 64 - at]):
        memory[header + at + offset] = byte
    assert one.get("a", LONG_NS) in (None, b"content")
    one.close()


class Counters(RuleBasedStateMachine):
    """Workers that render a clock, at any pace: what a reader gets never goes back."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = 10
        memory = memoryview(bytearray(WORKERS * TABLE_BYTES))
        self.tables = [RecentRenderings(memory[:], SECRET) for _ in range(WORKERS)]
        self.real = time.monotonic_ns
        time.monotonic_ns = lambda: self.now_ns
        self.under_way: dict[int, tuple[str, int, int]] = {}
        self.given: dict[str, int] = {}

    @rule(worker=st.integers(0, WORKERS - 1), name=st.sampled_from(("a", "b", "c")))
    def open(self, worker: int, name: str) -> None:
        """A reader whose OPEN begins now: whatever was given out before is the least it may get."""
        if worker in self.under_way:
            return
        content = self.tables[worker].get(name, 50)
        if content is None:
            self.under_way[worker] = (name, self.now_ns, self.now_ns)
        else:
            assert int(content) >= self.given.get(name, 0)
        self.now_ns += 1

    @rule(worker=st.integers(0, WORKERS - 1))
    def look(self, worker: int) -> None:
        """A rendering reads the counter at any moment between its beginning and its end."""
        if worker in self.under_way:
            name, began_ns, _ = self.under_way[worker]
            self.under_way[worker] = (name, began_ns, self.now_ns)
        self.now_ns += 1

    @rule(worker=st.integers(0, WORKERS - 1))
    def end(self, worker: int) -> None:
        if worker in self.under_way:
            name, began_ns, seen = self.under_way.pop(worker)
            self.tables[worker].note(worker, name, b"%d" % seen, began_ns)
            self.given[name] = max(self.given.get(name, 0), seen)
        self.now_ns += 1

    @rule(worker=st.integers(0, WORKERS - 1))
    def die(self, worker: int) -> None:
        self.under_way.pop(worker, None)

    def teardown(self) -> None:
        time.monotonic_ns = self.real
        for table in self.tables:
            table.close()


TestCounters = Counters.TestCase


def test_two_processes_of_one_store_share_it() -> None:
    store = HandleStore.create(2, (SlotClass(128, 4),))
    store.adopt_part(0)
    store.note("a", b"content", time.monotonic_ns())
    other = HandleStore.adopt(os.dup(store.fd))
    assert other.recent("a", LONG_NS) == b"content"
    other.close()
    store.close()
    another = HandleStore.create(2, (SlotClass(128, 4),))
    assert another.recent("a", LONG_NS) is None
    another.close()
