"""Proves: each subject is heard, none without end, and what was left out is counted."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.daemon import logs
from procscope.daemon.logs import RateLimit


def record(at_s: float, subject: object = "meminfo", line: int = 1) -> logging.LogRecord:
    made = logging.LogRecord(
        "x", logging.WARNING, "x.py", line, "%s is the host's", (subject,), None
    )
    made.created = at_s
    return made


def test_a_burst_is_heard_and_then_silence() -> None:
    limit = RateLimit(burst=3, period_s=60)
    assert [limit.filter(record(float(at))) for at in range(6)] == [True] * 3 + [False] * 3


def test_after_the_period_it_is_heard_again_with_the_count() -> None:
    limit = RateLimit(burst=3, period_s=60)
    for at in range(10):
        limit.filter(record(float(at)))
    later = record(60.0)
    assert limit.filter(later)
    assert later.getMessage() == "meminfo is the host's (7 such lines left out)"


def test_nothing_left_out_says_nothing() -> None:
    limit = RateLimit(burst=3, period_s=60)
    limit.filter(record(0.0))
    later = record(61.0)
    assert limit.filter(later)
    assert later.getMessage() == "meminfo is the host's"


def test_subjects_and_places_do_not_silence_each_other() -> None:
    limit = RateLimit(burst=1, period_s=60)
    for subject in ("meminfo", "stat", 7):
        for line in (1, 2):
            assert limit.filter(record(0.0, subject, line))
            assert not limit.filter(record(0.0, subject, line))


def test_memory_is_bounded() -> None:
    limit = RateLimit()
    for number in range(5000):
        limit.filter(record(0.0, number))
    assert len(limit._seen) <= 1001


@given(st.lists(st.floats(0, 500, allow_nan=False), min_size=1, max_size=60).map(sorted))
def test_in_any_period_at_most_two_bursts_are_heard(times: list[float]) -> None:
    limit = RateLimit(burst=2, period_s=60)
    heard = [at for at in times if limit.filter(record(at))]
    assert heard[:1] == times[:1]
    for begin in heard:
        assert sum(begin <= at < begin + 60 for at in heard) <= 4


@pytest.fixture
def _own_logging() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.level, root.handlers[:])
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]


@pytest.mark.usefixtures("_own_logging")
@pytest.mark.parametrize("debug", [False, True])
def test_one_line_each_on_stderr(capsys: pytest.CaptureFixture[str], debug: bool) -> None:
    logs.configure(debug=debug)
    log = logging.getLogger("procscope.test")
    for _ in range(9):
        log.warning("%s is lost", "this")
    log.debug("detail")
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == (10 if debug else 5)
    pattern = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING \[\d+\] this is lost"
    assert re.fullmatch(pattern, lines[0])


@pytest.mark.usefixtures("_own_logging")
@pytest.mark.parametrize(
    "name", ["a\nb", "a\r2026-01-01 ERROR", "\x1b[2J", "\u2028", "\u202e", "\udcff"]
)
def test_a_name_that_a_container_has_chosen_stays_in_its_line(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    logs.configure(debug=False)
    logging.getLogger("procscope.test").warning("%s of container %s is lost", "meminfo", name)
    text = capsys.readouterr().err
    assert text.endswith(" is lost\n")
    assert text[:-1].isprintable()
