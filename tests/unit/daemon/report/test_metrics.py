"""Proves: what is told is Prometheus' text format, and only what is known."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.daemon.report.metrics import Metric, collect, render

STATUS: dict[str, object] = {
    "workers": [{"index": 0, "pid": 5}, {"index": 1, "pid": 6}],
    "deaths": 3,
    "keeper": {"pid": 7},
    "containers": 12,
    "started_at_s": 1795444667.05,
    "healed_files": 8,
    "given_back_files": 0,
    "fallbacks": 1,
    "pinned": {"outsiders": 9},
}
_LINE = re.compile(r'[a-z_]+(\{[a-z_]+="(\\.|[^"\\\n])*"\})? -?[0-9.e+-]+')


def values(metrics: list[Metric]) -> dict[str, float]:
    return {metric.name.removeprefix("procscope_"): metric.value for metric in metrics}


def test_while_it_serves() -> None:
    assert values(collect("1.2", ready=True, status=STATUS)) == {
        "build_info": 1,
        "serving": 1,
        "ready": 1,
        "workers": 2,
        "keeper_connected": 1,
        "process_deaths_total": 3,
        "containers": 12,
        "start_time_seconds": 1795444667.05,
        "healed_files_total": 8,
        "given_back_files_total": 0,
        "fallbacks_total": 1,
        "pinned_serving": 1,
        "pinned_outside_lookups_total": 9,
    }


@pytest.mark.parametrize("pinned", [{"pinned": None}, {}])
def test_without_a_pinned_tree(pinned: dict[str, object]) -> None:
    status = {key: value for key, value in STATUS.items() if key != "pinned"} | pinned
    told = values(collect("1.2", ready=True, status=status))
    assert told["pinned_serving"] == 0
    assert "pinned_outside_lookups_total" not in told


def test_on_standby_nothing_is_told_of_another_agent() -> None:
    told = values(collect("1.2", ready=True, status=None))
    assert told == {"build_info": 1, "serving": 0, "ready": 1}


def test_without_a_keeper() -> None:
    told = values(collect("1.2", ready=False, status={**STATUS, "keeper": None}))
    assert (told["keeper_connected"], told["ready"]) == (0, 0)


def test_the_text() -> None:
    assert render([Metric("procscope_build_info", "The version.", 1, {"version": "1.2"})]) == (
        "# HELP procscope_build_info The version.\n"
        "# TYPE procscope_build_info gauge\n"
        'procscope_build_info{version="1.2"} 1\n'
    )
    assert "# TYPE a_total counter\na_total 2\n" in render([Metric("a_total", "A.", 2)])


@given(st.text(), st.integers(0, 1 << 60), st.booleans())
def test_every_line_is_of_the_format(version: str, number: int, ready: bool) -> None:
    text = render(collect(version, ready=ready, status={**STATUS, "deaths": number}))
    for line in text.removesuffix("\n").split("\n"):
        assert line.startswith(("# HELP ", "# TYPE ")) or _LINE.fullmatch(line), line
