"""Levels, skips and leaks, for every test.

- A test belongs to the level whose folder it is in. A level that cannot run on this machine is
  skipped, and one line at the end says so and why.
- With `PROCSCOPE_NO_SKIP=1` in the environment every skip is a failure.
- A test of a level with real mounts and processes must leave the machine as it found it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.integration.waiting import SLOWNESS
from tests.leaks import left_since, mark_descendants, traces
from tests.levels import BY_NAME, LEVELS, Level

TESTS = Path(__file__).parent
NO_SKIP = os.environ.get("PROCSCOPE_NO_SKIP", "") not in ("", "0")
LEFT_BEHIND = 20
"""The exit status of a session after which something is left; pytest's own are less."""

SELECTED: Counter[str] = Counter()
OUTCOMES: dict[str, Counter[str]] = {level.name: Counter() for level in LEVELS}
SINGLE_SKIPS: list[str] = []
EMPTY: list[str] = []


def level_of(path: Path) -> Level | None:
    """The level whose folder holds a file."""
    if not path.is_relative_to(TESTS):
        return None
    return BY_NAME.get(path.relative_to(TESTS).parts[0])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test its level's limit, and skip the tests of levels that cannot run."""
    for item in items:
        level = level_of(item.path)
        if level is None:
            continue
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(level.timeout_s * SLOWNESS))
        if reason := level.why_not():
            item.add_marker(pytest.mark.skip(reason=f"level {level.name}: {reason}"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Remember which levels were asked for; one that has lost its tests must not pass unseen."""
    SELECTED.update(level.name for item in session.items if (level := level_of(item.path)))
    for argument in session.config.args:
        folder = (session.config.invocation_params.dir / argument).resolve()
        if folder.parent == TESTS and folder.name in BY_NAME and not any(folder.rglob("test_*.py")):
            EMPTY.append(folder.name)
    if EMPTY and NO_SKIP:
        raise pytest.UsageError(f"levels without any test: {', '.join(EMPTY)}")


def _refuse(report: pytest.TestReport | pytest.CollectReport) -> str:
    """The reason of a skip; where no skip is allowed the report becomes a failure."""
    reason = str(report.longrepr)
    if isinstance(report.longrepr, tuple):
        reason = str(report.longrepr[2]).removeprefix("Skipped: ")
    if NO_SKIP:
        report.outcome = "failed"
        report.longrepr = f"skipped although PROCSCOPE_NO_SKIP is set: {reason}"
    return reason


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Count outcomes by level, and note or refuse a skip."""
    report = yield
    level = level_of(item.path)
    name = level.name if level else ""
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = _refuse(report)
        if level is None or not level.why_not():
            SINGLE_SKIPS.append(f"{item.nodeid}: {reason}")
    if name and (report.when == "call" or not report.passed):
        word = "expected to fail" if hasattr(report, "wasxfail") else report.outcome
        OUTCOMES[name][word] += 1
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Note or refuse the skip of a whole file."""
    report = yield
    if report.skipped:
        SINGLE_SKIPS.append(f"{collector.nodeid}: {_refuse(report)}")
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line per level what became of it, then name each single skip."""
    terminalreporter.section("levels")
    for level in LEVELS:
        if not SELECTED[level.name]:
            continue
        if reason := level.why_not():
            word = "FAILED, cannot run" if NO_SKIP else "skipped"
            terminalreporter.write_line(f"{level.name}: {word}: {reason}")
            continue
        counts = ", ".join(f"{n} {outcome}" for outcome, n in sorted(OUTCOMES[level.name].items()))
        terminalreporter.write_line(f"{level.name}: {counts or 'not run'}")
    for name in EMPTY:
        terminalreporter.write_line(f"{name}: skipped: has no tests")
    for skip in SINGLE_SKIPS:
        terminalreporter.write_line(f"one test {'refused' if NO_SKIP else 'skipped'}: {skip}")


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_at_the_end(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a session or a module shares is gone when the last test is done."""
    levels = {level_of(item.path) for item in request.session.items}
    if not any(level and level.leak_checked for level in levels):
        yield
        return
    mark_descendants()
    before = traces()
    yield
    if left := left_since(before):
        # No failure of the test that happened to be the last.
        pytest.exit("the session left behind:\n  " + "\n  ".join(left), returncode=LEFT_BEHIND)


@pytest.fixture(autouse=True)
def _nothing_left_behind(
    request: pytest.FixtureRequest, _nothing_left_at_the_end: None
) -> Iterator[None]:
    """Every test cleans up after itself: mounts, processes, cgroups, descriptors."""
    level = level_of(request.path)
    if level is None or not level.leak_checked:
        yield
        return
    before = traces()
    yield
    if left := left_since(before):
        pytest.fail("the test left behind:\n  " + "\n  ".join(left), pytrace=False)
