"""Proves when a loop follows its reader, and that it never stays where it went for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.fuse.following import Follower
from procscope.ids import CpuId, Pid

FAST_US, SLOW_US = 30, 70
READER, OTHER, NOBODY = Pid(7), Pid(8), Pid(0)
HERE, THERE, NOT_ALLOWED = CpuId(0), CpuId(1), CpuId(2)
MS_US = 1000


class FakePlacement:
    """May run on two CPUs; `cpu` is where it makes way, None where it runs as before."""

    def __init__(self) -> None:
        self.cpu: CpuId | None = None
        self.restored = 0

    def make_way_on(self, cpu: CpuId, /) -> bool:
        if cpu not in (HERE, THERE):
            return False
        self.cpu = cpu
        return True

    def restore(self) -> None:
        assert self.cpu is not None
        self.cpu = None
        self.restored += 1


class Scene:
    """A loop with its readers, and a clock that goes on when one of them wakes it."""

    def __init__(self) -> None:
        self.placement = FakePlacement()
        self.cpus: dict[Pid, CpuId] = {READER: HERE, OTHER: THERE}
        self.looked_for: list[Pid] = []
        self.follower = Follower(self.placement, self._cpu_of)
        self.now_us = 1_000_000

    def _cpu_of(self, pid: Pid) -> CpuId | None:
        self.looked_for.append(pid)
        return self.cpus.get(pid)

    @property
    def now_ns(self) -> int:
        return self.now_us * 1000

    def follows(self) -> bool:
        return self.follower.is_following

    def wake(self, since_us: int = SLOW_US, pid: Pid = READER, times: int = 1) -> None:
        for _ in range(times):
            self.now_us += since_us
            self.follower.woken(pid, self.now_ns, since_us * 1000)

    def follow(self) -> int:
        """Let the reader read until it is followed; return how long that has taken."""
        began_us = self.now_us
        while not self.follows():
            assert self.now_us - began_us < 2_000 * MS_US
            self.wake(400)
        return self.now_us - began_us


@pytest.mark.parametrize("since_us", [41, 70, 400])
def test_who_hands_over_slowly_eight_times_is_followed(since_us: int) -> None:
    scene = Scene()
    scene.wake(since_us, times=1 + 7)
    assert not scene.follows()
    assert scene.placement.cpu is None
    scene.wake(since_us)
    assert scene.follows()
    assert scene.placement.cpu == HERE


@pytest.mark.parametrize("since_us", [5, 40, 401, 10_000])
def test_who_hands_over_fast_or_computes_in_between_is_not(since_us: int) -> None:
    """Nor who does so every other time."""
    scene = Scene()
    scene.wake(since_us, times=100)
    for _ in range(100):
        scene.wake()
        scene.wake(since_us)
    assert not scene.follows()
    assert scene.looked_for == []


def test_two_who_read_by_turns_are_not() -> None:
    scene = Scene()
    for _ in range(100):
        scene.wake(pid=READER)
        scene.wake(pid=OTHER)
    assert scene.looked_for == []


def test_a_pause_makes_it_count_anew() -> None:
    scene = Scene()
    scene.wake(times=1 + 7)
    scene.wake(401)
    scene.wake(times=7)
    assert not scene.follows()
    scene.wake()
    assert scene.follows()


def test_closed_files_are_of_the_same_reader() -> None:
    """Before it is followed, and afterwards."""
    scene = Scene()
    for _ in range(5):
        scene.wake()
        scene.wake(pid=NOBODY)
    assert scene.follows()
    scene.wake(FAST_US, NOBODY, times=20)
    assert scene.follows()


def test_it_goes_after_a_reader_that_has_been_moved() -> None:
    scene = Scene()
    scene.follow()
    scene.cpus[READER] = THERE
    scene.wake()
    assert scene.placement.cpu == HERE
    scene.wake()
    assert scene.placement.cpu == THERE
    assert scene.placement.restored == 0


@pytest.mark.parametrize("cpu", [NOT_ALLOWED, None])
def test_where_the_reader_cannot_be_followed_to_it_is_let_go(cpu: CpuId | None) -> None:
    scene = Scene()
    scene.follow()
    scene.cpus.pop(READER)
    if cpu is not None:
        scene.cpus[READER] = cpu
    scene.wake(times=2)
    assert not scene.follows()
    assert scene.placement.restored == 1


@pytest.mark.parametrize("cpu", [NOT_ALLOWED, None])
def test_a_reader_that_cannot_be_followed_is_rarely_looked_for(cpu: CpuId | None) -> None:
    scene = Scene()
    scene.cpus = {} if cpu is None else {READER: cpu}
    scene.wake(400, times=2500)
    assert not scene.follows()
    assert scene.placement.restored == 0
    assert 1 < len(scene.looked_for) < 10


def give_up(scene: Scene) -> None:
    """Let the reader hand over slowly though it is followed, until it is let go."""
    scene.wake(times=2 * 8 - 1)
    assert scene.follows()
    scene.wake()
    assert not scene.follows()


def test_where_it_is_of_no_use_it_is_left_for_longer_and_longer() -> None:
    """From 10 ms to 1.28 s; what is seen is a multiple of a hand-over longer."""
    scene = Scene()
    scene.follow()
    breaks_us = []
    for _ in range(10):
        give_up(scene)
        breaks_us.append(scene.follow())
    bounds_us = [min(10 << count, 1280) * MS_US for count in range(10)]
    assert all(
        bound_us <= break_us <= bound_us + 400
        for break_us, bound_us in zip(breaks_us, bounds_us, strict=True)
    )


def test_after_it_was_of_use_the_breaks_begin_anew() -> None:
    scene = Scene()
    scene.follow()
    for _ in range(3):
        give_up(scene)
        scene.follow()
    scene.wake(FAST_US, times=201 * MS_US // FAST_US)
    scene.follower.meet(OTHER, scene.now_ns)
    assert 10 * MS_US <= scene.follow() <= 11 * MS_US


@pytest.mark.parametrize("comes", ["wakes it", "waits beside"])
def test_another_reader_ends_it_with_a_break(comes: str) -> None:
    scene = Scene()
    scene.follow()
    if comes == "wakes it":
        scene.wake(pid=OTHER)
    else:
        scene.follower.meet(READER, scene.now_ns)
        assert scene.follows(), "it is the reader itself"
        scene.follower.meet(OTHER, scene.now_ns)
    assert not scene.follows()
    assert scene.placement.restored == 1
    assert 10 * MS_US - SLOW_US <= scene.follow() <= 11 * MS_US


def test_who_waits_beside_others_is_of_no_interest_while_nobody_is_followed() -> None:
    scene = Scene()
    scene.wake(times=5)
    scene.follower.meet(OTHER, scene.now_ns)
    scene.wake(times=4)
    assert scene.follows()


def test_a_pause_ends_it_without_a_break() -> None:
    scene = Scene()
    scene.follow()
    scene.follower.pause()
    assert not scene.follows()
    assert scene.placement.restored == 1
    scene.wake(times=1 + 8)
    assert scene.follows()


def test_who_was_not_let_run_for_long_does_not_follow_for_long() -> None:
    """A gap that is shorter only counts as a pause of the reader."""
    scene = Scene()
    scene.follow()
    scene.wake(5000)
    assert scene.follows()
    scene.wake(5001)
    assert not scene.follows()
    assert scene.placement.restored == 1
    assert 1280 * MS_US <= scene.follow() <= 1281 * MS_US


CPUS = st.none() | st.sampled_from((HERE, THERE, NOT_ALLOWED))
PIDS = st.sampled_from((READER, READER, READER, OTHER, NOBODY))
WAKES = st.tuples(st.just("wake"), PIDS, st.sampled_from((FAST_US, SLOW_US, SLOW_US, 450, 6000)))
CALLS = st.lists(
    st.tuples(
        st.one_of(
            WAKES,
            st.tuples(st.just("meet"), PIDS, st.just(0)),
            st.tuples(st.just("pause"), st.just(NOBODY), st.just(0)),
        ),
        CPUS,
        st.sampled_from((1, 2, 10, 20, 200)),
    ),
    max_size=30,
)


@given(calls=CALLS)
def test_it_stays_away_exactly_as_long_as_it_follows(
    calls: list[tuple[tuple[str, Pid, int], CpuId | None, int]],
) -> None:
    """Whatever is called in which order, and wherever the reader is meanwhile."""
    scene = Scene()
    for (name, pid, since_us), cpu, times in calls:
        scene.cpus = {} if cpu is None else {READER: cpu, OTHER: cpu}
        for _ in range(times):
            was_following, restored = scene.follows(), scene.placement.restored
            if name == "wake":
                scene.wake(since_us, pid)
            elif name == "meet":
                scene.follower.meet(pid, scene.now_ns)
            else:
                scene.follower.pause()
            is_following = scene.follows()
            assert is_following == (scene.placement.cpu is not None)
            assert scene.placement.restored - restored == (was_following and not is_following)
