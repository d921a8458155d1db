"""`uptime` counts from the container's start; its load is that of its own tasks alone."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from tests.docker.conftest import Run
from tests.docker.containers import Container
from tests.docker.serving import procscope
from tests.docker.test_cpu_time import BUSY_LOOP

SAMPLE_S = 5
SAMPLES = 3
BUSY_LOOPS = 2


def age_s(container: Container) -> float:
    return float(container.read("/proc/uptime").split()[0])


def started_s_ago(container: Container) -> float:
    """By the engine's own record of the start."""
    text = container.inspect("{{.State.StartedAt}}").partition(".")[0].rstrip("Z")
    fraction = float("0." + container.inspect("{{.State.StartedAt}}").partition(".")[2].rstrip("Z"))
    started = datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() + fraction
    return time.time() - started


def test_uptime_counts_from_the_start(run: Run, views: tuple[str, ...]) -> None:
    container = run(*views)
    told_s = age_s(container)
    # The first process is made a little before the engine calls the container started.
    assert told_s == pytest.approx(started_s_ago(container), abs=1.0)
    assert " up 0 min" in container.run("uptime")


def test_a_restart_starts_the_clock_again(run: Run, views: tuple[str, ...]) -> None:
    container = run("-m", "64m", *views)
    container.shell("sleep 1.5")
    before_s = age_s(container)
    container.engine.docker("restart", "-t", "0", container.id)
    after_s = age_s(container)
    assert before_s > 1.5 > after_s
    assert after_s == pytest.approx(started_s_ago(container), abs=1.0)
    assert container.run("free").split()[7] == str(64 * 1024)


def one_sample_later(load: float) -> float:
    """What the kernel makes of a load of one minute when both loops are found running."""
    kept = math.exp(-SAMPLE_S / 60)
    return load * kept + BUSY_LOOPS * (1 - kept)


def loads_until(container: Container, samples: int) -> list[float]:
    """Return each new value of the one-minute load, the first 0.00.

    Seen from the host: on a machine whose CPUs are all busy, a reader inside would wait for one,
    and so be counted.
    """
    seen = [0.0]
    deadline_s = time.monotonic() + SAMPLE_S * (samples + 1)
    while len(seen) <= samples and time.monotonic() < deadline_s:
        shown = procscope("show", "loadavg", "--container", container.id)
        value = float(shown.stdout.split()[0])
        if value != seen[-1]:
            seen.append(value)
        time.sleep(0.2)
    return seen


def test_load_follows_the_kernels_formula(run: Run, all_views: tuple[str, ...]) -> None:
    idle, busy = run(*all_views), run(*all_views)
    for _ in range(BUSY_LOOPS):
        busy.start(*BUSY_LOOP)
    seen = loads_until(busy, SAMPLES)
    inside = busy.read("/proc/loadavg").split()
    sibling = idle.read("/proc/loadavg").split()
    print(f"load with two busy loops: {seen}, inside {inside}, sibling {sibling}")
    assert len(seen) == SAMPLES + 1
    assert float(inside[0]) >= seen[-1]
    # The first sample may have met the engine starting the loops.
    for earlier, later in pairwise(seen[1:]):
        assert later == pytest.approx(one_sample_later(earlier), abs=0.015)
    assert seen[1] == pytest.approx(one_sample_later(0), abs=0.2)
    assert inside[3].partition("/")[0] in ("2", "3")
    assert float(sibling[0]) <= 0.09
    assert sibling[3] in ("1/1", "1/2", "1/3")
