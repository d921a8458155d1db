"""The `loadavg` view: the kernel's decay, its catch-up, its rounding."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.views.loadavg import SAMPLE_INTERVAL_SECONDS, Load, decay, decay_n, render
from tests.unit.views.recorded import hosts_with, read

FIXED_1 = 2048
LOADS = st.builds(Load, *[st.integers(0, 1000 * FIXED_1)] * 3)


def after(intervals: int, active: int, load: Load = Load()) -> Load:  # noqa: B008
    for _ in range(intervals):
        load = decay(load, active)
    return load


def test_first_samples_are_the_kernels() -> None:
    """Worked out by hand from load * e + active * (1 - e), rounded up while rising."""
    assert decay(Load(), 1) == Load(164, 34, 11)
    assert decay(Load(164, 34, 11), 1) == Load(315, 68, 22)
    assert decay(Load(2048, 2048, 2048), 0) == Load(1884, 2014, 2037)


@pytest.mark.parametrize("active", [0, 1, 2, 7])
def test_a_steady_load_is_reached_and_kept(active: int) -> None:
    steady = Load(*[active * FIXED_1] * 3)
    assert after(3000, active) == steady
    assert after(3000, active, Load(9 * FIXED_1, 9 * FIXED_1, 9 * FIXED_1)) == steady


def test_after_one_time_constant_63_percent_are_reached() -> None:
    share = 1 - math.exp(-1)
    assert after(60 // SAMPLE_INTERVAL_SECONDS, 2).one / FIXED_1 == pytest.approx(
        2 * share, rel=0.01
    )
    assert after(300 // SAMPLE_INTERVAL_SECONDS, 2).five / FIXED_1 == pytest.approx(
        2 * share, rel=0.02
    )
    assert after(900 // SAMPLE_INTERVAL_SECONDS, 2).fifteen / FIXED_1 == pytest.approx(
        2 * share, rel=0.04
    )


@given(load=LOADS, active=st.integers(0, 1000), intervals=st.integers(1, 400))
def test_catching_up_is_near_to_single_steps(load: Load, active: int, intervals: int) -> None:
    """Powers of e are rounded to 11 bits, so the two differ by a share of what moves."""
    caught, stepped = decay_n(load, active, intervals), after(intervals, active, load)
    for name in ("one", "five", "fifteen"):
        moving = abs(getattr(load, name) - active * FIXED_1)
        assert abs(getattr(caught, name) - getattr(stepped, name)) <= 200 + moving // 50


@given(load=LOADS, active=st.integers(0, 1000))
def test_catching_up_one_interval_is_one_step(load: Load, active: int) -> None:
    assert decay_n(load, active, 1) == decay(load, active)


@given(load=LOADS, active=st.integers(-5, 1000), intervals=st.integers(0, 10**9))
def test_averages_stay_between_the_old_one_and_the_tasks(
    load: Load, active: int, intervals: int
) -> None:
    later = decay_n(load, active, intervals)
    for name in ("one", "five", "fifteen"):
        ends = sorted((getattr(load, name), max(0, active) * FIXED_1))
        assert ends[0] <= getattr(later, name) <= ends[1]


def test_no_interval_changes_nothing() -> None:
    assert decay_n(Load(1, 2, 3), 9, 0) == Load(1, 2, 3)
    assert decay_n(Load(1, 2, 3), 9, -4) == Load(1, 2, 3)


@pytest.mark.parametrize(
    ("load", "shown"),
    [
        (Load(0, 10, 11), b"0.00 0.00 0.01"),
        (Load(2048, 1024, 2037), b"1.00 0.50 0.99"),
        (Load(2038, 2037, 4095), b"1.00 0.99 2.00"),
        (Load(123 * 2048, 20, 31), b"123.00 0.01 0.02"),
    ],
)
def test_averages_are_rounded_to_the_nearest_hundredth(load: Load, shown: bytes) -> None:
    assert render(load, 2, 17, 4321) == shown + b" 2/17 4321\n"


def test_the_reader_itself_is_running() -> None:
    assert render(Load(), 0, 0, 1) == b"0.00 0.00 0.00 1/1 1\n"
    assert render(Load(), 3, 2, 1) == b"0.00 0.00 0.00 3/3 1\n"


@pytest.mark.parametrize("host", hosts_with("loadavg"))
def test_same_form_as_the_hosts_file(host: str) -> None:
    form = re.compile(rb"(\d+\.\d\d ){3}\d+/\d+ \d+\n")
    assert form.fullmatch(read(host, "loadavg"))
    assert form.fullmatch(render(Load(5000, 300, 20), 3, 40, 99))
