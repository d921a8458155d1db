"""CPU time: whatever the kernel's counters do, sums are exact and nothing goes backwards."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from procscope.cgroup.model import CpuUsage, PerCpuTime
from procscope.ids import CpuId
from procscope.values import replace
from procscope.views import cpu_time as module
from procscope.views.cpu_ledger import CpuColumns, CpuLedger, TakenTime
from procscope.views.cpu_time import advance, visible_columns
from tests.unit.views.recorded import SECOND_NS, cpus, usage

TICK_NS = SECOND_NS // 100
HIGHEST = (1 << 64) - 1


@dataclass(frozen=True)
class Moment:
    """What happens to a container before its next answer."""

    age_ns: int
    user_ns: int
    nice_ns: int
    system_ns: int
    throttled_ns: int
    on_cpu_ns: tuple[int, ...]
    remade: bool
    visible: tuple[CpuId, ...]
    per_cpu: bool
    counted_per_cpu: bool
    restarted: bool


GROWTH = st.integers(0, 3 * TICK_NS) | st.integers(0, 40 * SECOND_NS)
MOMENTS = st.builds(
    Moment,
    age_ns=st.integers(0, 3 * TICK_NS) | st.integers(-SECOND_NS, 3 * SECOND_NS),
    user_ns=GROWTH,
    nice_ns=GROWTH,
    system_ns=GROWTH,
    throttled_ns=GROWTH,
    on_cpu_ns=st.tuples(GROWTH, GROWTH, GROWTH, GROWTH),
    remade=st.integers(0, 9).map(lambda n: n == 0),
    visible=st.sets(st.integers(0, 3), min_size=1).map(lambda ids: cpus(*sorted(ids))),
    per_cpu=st.booleans(),
    counted_per_cpu=st.booleans(),
    restarted=st.booleans(),
)


@given(moments=st.lists(MOMENTS, min_size=1, max_size=12))
def test_sums_are_exact_and_no_column_decreases(moments: list[Moment]) -> None:
    """Bursts, limits up and down, CPUs swapped, a cgroup made anew, restarts: all in any order."""
    ledger: CpuLedger | None = None
    age_ns = 0
    counters = usage()
    on_cpu = [0, 0, 0, 0]
    for moment in moments:
        age_ns = max(0, age_ns + moment.age_ns)
        if moment.remade:
            counters, on_cpu = usage(), [0, 0, 0, 0]
        on_cpu = [a + b for a, b in zip(on_cpu, moment.on_cpu_ns, strict=True)]
        per_cpu = {CpuId(i): PerCpuTime(ns, ns // 3, ns) for i, ns in enumerate(on_cpu)}
        counters = CpuUsage(
            counters.user_ns + moment.user_ns,
            counters.nice_ns + moment.nice_ns,
            counters.system_ns + moment.system_ns,
            counters.throttled_ns + moment.throttled_ns,
            per_cpu if moment.counted_per_cpu else None,
        )
        if ledger is not None and moment.restarted:
            ledger = CpuLedger.from_bytes(ledger.to_bytes())
            assert ledger is not None
        after = advance(ledger, counters, moment.visible, age_ns, per_cpu=moment.per_cpu)
        assert all(row.total == after.age_ticks for row in visible_columns(after, moment.visible))
        assert all(min(_tuple(row)) >= 0 for row in after.columns.values())
        if ledger is None:
            assert after.age_ticks == age_ns // TICK_NS
        else:
            assert after.age_ticks == max(ledger.age_ticks, age_ns // TICK_NS)
            assert_no_decrease(ledger, after)
        ledger = after


def assert_no_decrease(before: CpuLedger, after: CpuLedger) -> None:
    for cpu, row in before.columns.items():
        pairs = zip(_tuple(row), _tuple(after.columns[cpu]), strict=True)
        assert all(a <= b for a, b in pairs), f"CPU {cpu}: {row} -> {after.columns[cpu]}"


def _tuple(row: CpuColumns) -> tuple[int, ...]:
    return row.user, row.nice, row.system, row.idle, row.steal


@given(steps=st.lists(st.tuples(GROWTH, GROWTH, GROWTH, st.booleans()), min_size=2, max_size=12))
def test_no_time_is_handed_out_twice(steps: list[tuple[int, int, int, bool]]) -> None:
    """What the container is told never exceeds what the kernel counted, also across modes."""
    ledger: CpuLedger | None = None
    total = on_cpu = throttled = 0
    for user_ns, throttled_ns, age_ns, per_cpu in steps:
        total, throttled = total + user_ns, throttled + throttled_ns
        on_cpu += user_ns // 2
        counted = CpuUsage(
            *(total, 0, 0, throttled), {cpu: PerCpuTime(on_cpu, 0, on_cpu) for cpu in cpus(0, 1)}
        )
        age_before = 0 if ledger is None else ledger.age_ticks * TICK_NS
        ledger = advance(ledger, counted, cpus(0, 1), age_before + age_ns, per_cpu=per_cpu)
        assert _sum(ledger, "user") * TICK_NS <= total
        assert _sum(ledger, "steal") * TICK_NS <= throttled


def _sum(ledger: CpuLedger, column: str) -> int:
    return sum(int(getattr(row, column)) for row in ledger.columns.values())


@given(
    before=st.lists(MOMENTS, min_size=1, max_size=3),
    parts_ns=st.tuples(*[st.integers(-2, TICK_NS)] * 4),
    visible=st.sets(st.integers(0, 3), min_size=1).map(lambda ids: cpus(*sorted(ids))),
    age_ns=st.integers(-TICK_NS, SECOND_NS),
)
def test_a_step_without_a_whole_tick_is_as_any_other(
    before: list[Moment], parts_ns: tuple[int, ...], visible: tuple[CpuId, ...], age_ns: int
) -> None:
    """Idle containers have a short way, which must end where the long one does."""
    ledger: CpuLedger | None = None
    last_ns = 0
    for moment in before:
        last_ns = max(0, last_ns + moment.age_ns)
        counters = usage(moment.user_ns, moment.system_ns, moment.throttled_ns)
        ledger = advance(ledger, counters, moment.visible, last_ns, per_cpu=False)
    assert ledger is not None
    taken = ledger.taken
    marks = (taken.user_ns, taken.nice_ns, taken.system_ns, taken.throttled_ns)
    user, nice, system, throttled = [max(0, a + b) for a, b in zip(marks, parts_ns, strict=True)]
    now = CpuUsage(user, nice, system, throttled, None)
    short = advance(ledger, now, visible, last_ns + age_ns, per_cpu=False)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "_is_nothing", lambda *_: False)
        assert advance(ledger, now, visible, last_ns + age_ns, per_cpu=False) == short


def walk(steps: Iterable[tuple[CpuUsage, float]], visible: tuple[CpuId, ...]) -> CpuLedger:
    ledger: CpuLedger | None = None
    for counted, age_seconds in steps:
        ledger = advance(ledger, counted, visible, int(age_seconds * SECOND_NS), per_cpu=False)
    assert ledger is not None
    return ledger


def test_first_sight_hands_out_the_totals_since_birth() -> None:
    counted = CpuUsage(3 * SECOND_NS, SECOND_NS, 2 * SECOND_NS, SECOND_NS, None)
    ledger = advance(None, counted, cpus(0, 1), 10 * SECOND_NS, per_cpu=False)
    assert visible_columns(ledger, cpus(0, 1)) == [CpuColumns(150, 50, 100, 650, 50)] * 2


def test_first_sight_drops_what_does_not_fit() -> None:
    first = usage(user_ns=60 * SECOND_NS, system_ns=20 * SECOND_NS, throttled_ns=SECOND_NS)
    ledger = walk([(first, 10), (first, 20)], cpus(0))
    assert ledger.columns == {0: CpuColumns(user=750, system=250, idle=1000)}


def test_a_busy_loop_is_all_of_one_cpu_and_half_of_two() -> None:
    steps = [(usage(user_ns=n * SECOND_NS), float(n)) for n in range(6)]
    assert walk(steps, cpus(3)).columns == {3: CpuColumns(user=500)}
    assert walk(steps, cpus(0, 1)).columns == {
        0: CpuColumns(user=250, idle=250),
        1: CpuColumns(user=250, idle=250),
    }


def test_single_ticks_go_round_the_cpus() -> None:
    """One tick of each kind per step must not pile up on one CPU each."""
    steps = [(usage(n * TICK_NS, n * TICK_NS), n / 100) for n in range(101)]
    rows = visible_columns(walk(steps, cpus(0, 1)), cpus(0, 1))
    assert rows == [CpuColumns(user=50, system=50)] * 2


def test_throttled_time_shows_as_steal_in_what_is_not_used() -> None:
    half = [
        (usage(user_ns=n * SECOND_NS // 2, throttled_ns=n * SECOND_NS // 2), float(n))
        for n in range(5)
    ]
    assert walk(half, cpus(0)).columns == {0: CpuColumns(user=200, steal=200)}
    thrice = [(replace(counted, throttled_ns=3 * counted.user_ns), age) for counted, age in half]
    assert walk(thrice, cpus(0)).columns == {0: CpuColumns(user=200, steal=200)}


def test_throttled_time_that_adds_up_over_cpus_is_carried_for_200_ms_only() -> None:
    steps = [(usage(), 1.0), (usage(throttled_ns=9 * SECOND_NS), 2.0)]
    steps += [(usage(throttled_ns=9 * SECOND_NS), float(n)) for n in range(3, 6)]
    assert walk(steps, cpus(0)).columns == {0: CpuColumns(idle=380, steal=120)}


def test_a_burst_is_carried_for_one_second_per_cpu_and_then_dropped() -> None:
    steps = [(usage(), 1.0), (usage(user_ns=9 * SECOND_NS), 2.0)]
    steps += [(usage(user_ns=9 * SECOND_NS), float(n)) for n in range(3, 7)]
    assert walk(steps, cpus(0)).columns == {0: CpuColumns(user=200, idle=400)}
    assert _sum(walk(steps, cpus(0, 1)), "user") == 400


def test_parts_of_a_tick_are_not_lost() -> None:
    steps = [(usage(user_ns=n * 4_000_000), n / 100) for n in range(1001)]
    assert walk(steps, cpus(0)).columns == {0: CpuColumns(user=400, idle=600)}


def test_a_cpu_that_comes_back_was_idle_while_away() -> None:
    ledger = walk([(usage(user_ns=2 * SECOND_NS), 2.0)], cpus(0, 1))
    ledger = advance(ledger, usage(5 * SECOND_NS), cpus(0), 5 * SECOND_NS, per_cpu=False)
    assert ledger.columns[CpuId(1)] == CpuColumns(user=100, idle=100)
    ledger = advance(ledger, usage(7 * SECOND_NS), cpus(0, 1), 6 * SECOND_NS, per_cpu=False)
    assert visible_columns(ledger, cpus(0, 1)) == [
        CpuColumns(user=500, idle=100),
        CpuColumns(user=200, idle=400),
    ]


def test_a_cgroup_that_is_made_anew_counts_on_from_where_it_is() -> None:
    steps = [(usage(5 * SECOND_NS), 5.0), (usage(SECOND_NS), 6.0), (usage(2 * SECOND_NS), 7.0)]
    assert walk(steps, cpus(0)).columns == {0: CpuColumns(user=600, idle=100)}


def test_per_cpu_time_stays_on_its_cpu() -> None:
    def counted(seconds: int) -> CpuUsage:
        used_ns = seconds * SECOND_NS
        busy = PerCpuTime(used_ns * 3 // 4, used_ns // 4, used_ns)
        per_cpu = {CpuId(2): PerCpuTime(0, 0, 0), CpuId(3): busy, CpuId(5): busy}
        return CpuUsage(busy.user_ns, 0, busy.system_ns, 0, per_cpu)

    ledger = advance(None, counted(2), cpus(2, 3, 4), 2 * SECOND_NS, per_cpu=True)
    ledger = advance(ledger, counted(4), cpus(2, 3, 4), 4 * SECOND_NS, per_cpu=True)
    assert ledger.columns == {
        2: CpuColumns(idle=400),
        3: CpuColumns(user=300, system=100),
        4: CpuColumns(idle=400),
    }


def test_the_exact_time_of_a_cpu_counts_and_samples_only_divide_it() -> None:
    """A task that runs whenever the tick comes is sampled as if it never slept."""

    def counted(seconds: int) -> CpuUsage:
        sampled_ns, used_ns = seconds * SECOND_NS // 2, seconds * SECOND_NS * 2 // 5
        return CpuUsage(0, 0, 0, 0, {CpuId(0): PerCpuTime(sampled_ns, sampled_ns, used_ns)})

    ledger = advance(None, counted(10), cpus(0), 10 * SECOND_NS, per_cpu=True)
    ledger = advance(ledger, counted(20), cpus(0), 20 * SECOND_NS, per_cpu=True)
    assert ledger.columns == {0: CpuColumns(user=400, system=400, idle=1200)}


@pytest.mark.parametrize("modes", [(True, False), (False, True), (True, False, True)])
def test_a_change_of_mode_counts_no_time_twice(modes: tuple[bool, ...]) -> None:
    ledger: CpuLedger | None = None
    for seconds, per_cpu in enumerate(modes, 1):
        used_ns = seconds * SECOND_NS // 2
        half = PerCpuTime(used_ns // 2, used_ns // 2, used_ns)
        counted = CpuUsage(
            2 * half.user_ns, 0, 2 * half.system_ns, 0, {CpuId(0): half, CpuId(1): half}
        )
        ledger = advance(ledger, counted, cpus(0, 1), 2 * seconds * SECOND_NS, per_cpu=per_cpu)
    assert ledger is not None
    share = 25 * len(modes)
    row = CpuColumns(user=share, system=share, idle=200 * len(modes) - 2 * share)
    assert ledger.columns == {0: row, 1: row}


def test_time_from_before_each_cpu_was_told_apart_is_not_lost() -> None:
    """A quota that hides CPUs is taken away: until then nobody has asked for the time of each."""
    ledger: CpuLedger | None = None
    for seconds in range(1, 7):
        used_ns = seconds * SECOND_NS // 2
        each = {CpuId(0): PerCpuTime(used_ns, 0, used_ns), CpuId(1): PerCpuTime(0, 0, 0)}
        per_cpu = seconds > 2
        counted = CpuUsage(used_ns, 0, 0, 0, each if per_cpu else None)
        ledger = advance(ledger, counted, cpus(0, 1), seconds * SECOND_NS, per_cpu=per_cpu)
        assert _sum(ledger, "user") == seconds * 50
    assert ledger is not None
    assert ledger.columns[CpuId(0)].user == 75 + 150, "half of three steps, all of three"


def test_per_cpu_time_too_is_dropped_at_first_sight_and_carried_for_one_second_later() -> None:
    def counted(seconds: int) -> CpuUsage:
        used_ns = seconds * SECOND_NS
        return CpuUsage(0, 0, 0, 0, {CpuId(0): PerCpuTime(used_ns, 0, used_ns)})

    ledger = advance(None, counted(60), cpus(0), SECOND_NS, per_cpu=True)
    ledger = advance(ledger, counted(60), cpus(0), 2 * SECOND_NS, per_cpu=True)
    assert ledger.columns == {0: CpuColumns(user=100, idle=100)}
    ledger = advance(ledger, counted(70), cpus(0), 3 * SECOND_NS, per_cpu=True)
    for age in (4, 5, 6):
        ledger = advance(ledger, counted(70), cpus(0), age * SECOND_NS, per_cpu=True)
    assert ledger.columns == {0: CpuColumns(user=300, idle=300)}


def test_remainders_of_two_kinds_fit_when_there_is_no_room_to_spare() -> None:
    """3 + 3 ticks on two CPUs with room for 3 each: both remainders cannot go to the same."""
    ledger = advance(None, usage(3 * TICK_NS, 3 * TICK_NS), cpus(0, 1), 3 * TICK_NS, per_cpu=False)
    assert ledger.columns == {0: CpuColumns(user=2, system=1), 1: CpuColumns(user=1, system=2)}


def test_age_that_does_not_advance_hands_out_nothing() -> None:
    ledger = walk([(usage(), 1.0), (usage(SECOND_NS), 1.0)], cpus(0))
    assert ledger.columns == {0: CpuColumns(idle=100)}
    later = advance(ledger, usage(SECOND_NS), cpus(0), 0, per_cpu=False)
    assert (later.age_ticks, later.columns) == (100, ledger.columns)
    last = advance(later, usage(SECOND_NS), cpus(0), 2 * SECOND_NS, per_cpu=False)
    assert last.columns == {0: CpuColumns(user=100, idle=100)}


def test_a_visible_cpu_without_columns_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="CPU 9"):
        visible_columns(walk([(usage(), 1.0)], cpus(0)), cpus(9))


NUMBERS = st.integers(0, HIGHEST)
ROWS = st.builds(CpuColumns, *[st.integers(0, 1 << 40)] * 5)
CPU_IDS = st.integers(0, 8191).map(CpuId)
LEDGERS = st.builds(
    CpuLedger,
    st.integers(5 << 40, HIGHEST),
    st.dictionaries(CPU_IDS, ROWS, max_size=5),
    st.builds(TakenTime, NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    st.dictionaries(CPU_IDS, st.builds(PerCpuTime, NUMBERS, NUMBERS, NUMBERS), max_size=5),
)


@given(ledger=LEDGERS)
def test_a_stored_ledger_comes_back_equal(ledger: CpuLedger) -> None:
    assert CpuLedger.from_bytes(ledger.to_bytes()) == ledger


@given(ledger=LEDGERS, data=st.data())
def test_a_damaged_ledger_is_none(ledger: CpuLedger, data: st.DataObject) -> None:
    stored = ledger.to_bytes()
    cut = data.draw(st.integers(0, len(stored) - 1))
    flipped = bytearray(stored)
    flipped[cut] ^= data.draw(st.integers(1, 255))
    assert CpuLedger.from_bytes(stored[:cut]) is None
    assert CpuLedger.from_bytes(bytes(flipped)) is None
    assert CpuLedger.from_bytes(stored + b"\0") is None


@given(garbage=st.binary(max_size=200))
@example(garbage=b"")
def test_garbage_is_none_even_with_a_right_checksum(garbage: bytes) -> None:
    checksum = zlib.crc32(garbage).to_bytes(4, "little")
    assert CpuLedger.from_bytes(garbage) is None
    assert CpuLedger.from_bytes(garbage + checksum) is None


def test_another_version_of_the_layout_is_none() -> None:
    body = bytearray(CpuLedger(1, {}, TakenTime(), {}).to_bytes()[:-4])
    body[4] += 1
    assert CpuLedger.from_bytes(bytes(body) + zlib.crc32(body).to_bytes(4, "little")) is None


def test_a_stored_row_above_the_age_is_none() -> None:
    row = {CpuId(0): CpuColumns(user=101)}
    assert CpuLedger.from_bytes(CpuLedger(100, row, TakenTime(), {}).to_bytes()) is None


def test_a_number_beyond_64_bits_cannot_be_stored() -> None:
    with pytest.raises(ValueError, match="stored"):
        CpuLedger(HIGHEST + 1, {}, TakenTime(), {}).to_bytes()
