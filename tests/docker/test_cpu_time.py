"""CPU time: the tools in a container show what the kernel has counted for it, and no other's.

The expected percentages are not those that were asked for, but what the cgroup's own counters say
over the same seconds. So a machine that is busy with something else changes both.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.docker import readings
from tests.docker.conftest import Run
from tests.docker.containers import Container, throttled_ns, used_ns

WINDOW_S = 5
POINTS = 3.0
STARTED_S = 0.4
LAST_CPU = str((os.cpu_count() or 1) - 1)
BUSY_LOOP = ("sh", "-c", "while :; do :; done")

TOOLS = (
    f"top -b -d {WINDOW_S} -n 2 >/tmp/top & mpstat -P ALL {WINDOW_S} 1 >/tmp/mpstat & "
    f"vmstat {WINDOW_S} 2 >/tmp/vmstat & wait"
)
"""All at once, so that they share one window. The first round of top and vmstat is since boot."""


@dataclass(frozen=True)
class Counted:
    """The kernel's counters of a container at one moment."""

    at_ns: int
    used_ns: int
    throttled_ns: int


@dataclass(frozen=True)
class Window:
    """What the kernel has counted for a container in a while, in percent of one CPU."""

    used: float
    throttled: float


@dataclass(frozen=True)
class Shown:
    """What the tools have shown."""

    top: dict[str, float]
    mpstat: dict[str, dict[str, float]]
    vmstat: dict[str, int]

    @property
    def used(self) -> dict[str, float]:
        """User and system time in percent, by tool."""
        total = self.mpstat["all"]
        return {
            "top": self.top["us"] + self.top["sy"] + self.top["ni"],
            "mpstat": total["%usr"] + total["%sys"] + total["%nice"],
            "vmstat": self.vmstat["us"] + self.vmstat["sy"],
        }

    @property
    def steal(self) -> dict[str, float]:
        """Stolen time in percent, by tool."""
        return {
            "top": self.top["st"],
            "mpstat": self.mpstat["all"]["%steal"],
            "vmstat": self.vmstat["st"],
        }


def count(container: Container) -> Counted:
    return Counted(time.monotonic_ns(), used_ns(container), throttled_ns(container))


def between(start: Counted, end: Counted) -> Window:
    passed_ns = end.at_ns - start.at_ns
    return Window(
        used=100 * (end.used_ns - start.used_ns) / passed_ns,
        throttled=100 * (end.throttled_ns - start.throttled_ns) / passed_ns,
    )


def watch(container: Container) -> tuple[list[Window], Shown]:
    """Let the tools look for a while, and count beside them.

    The engine takes a moment to start the tools. Their window lies between the two that are
    returned: from before that moment, and from after it.
    """
    before = count(container)
    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(container.shell, TOOLS)
        time.sleep(STARTED_S)
        started = count(container)
        looking.result()
    end = count(container)
    shown = Shown(
        top=readings.top_percentages(container.read("/tmp/top")),
        mpstat=readings.mpstat_percentages(container.read("/tmp/mpstat")),
        vmstat=readings.vmstat_percentages(container.read("/tmp/vmstat")),
    )
    return [between(before, end), between(started, end)], shown


def assert_all_near(shown: dict[str, float], counted: list[float]) -> None:
    """Each tool is within the tolerance of what the kernel has counted."""
    for tool, percent in shown.items():
        assert min(counted) - POINTS <= percent <= max(counted) + POINTS, (tool, shown, counted)


def at_once(*watches: Callable[[], tuple[list[Window], Shown]]) -> list[tuple[list[Window], Shown]]:
    """Watch several containers in the same seconds."""
    with ThreadPoolExecutor(len(watches)) as pool:
        return [future.result() for future in [pool.submit(each) for each in watches]]


def test_a_busy_loop_shows_inside_and_not_in_a_sibling(
    run: Run, all_views: tuple[str, ...]
) -> None:
    busy = run("--cpuset-cpus", LAST_CPU, *all_views)
    idle = run("--cpuset-cpus", LAST_CPU, *all_views)
    busy.start(*BUSY_LOOP)
    (of_busy, busy_shows), (of_idle, idle_shows) = at_once(lambda: watch(busy), lambda: watch(idle))
    print(f"busy: kernel {of_busy}, shown {busy_shows.used}")
    print(f"sibling: kernel {of_idle}, shown {idle_shows.used}")
    used = [window.used for window in of_busy]
    assert min(used) > 30
    assert_all_near(busy_shows.used, used)
    of_cpu = busy_shows.mpstat[LAST_CPU]
    assert_all_near({"of its CPU": of_cpu["%usr"] + of_cpu["%sys"]}, used)
    assert_all_near(idle_shows.used, [window.used for window in of_idle])
    assert max(idle_shows.used.values()) < 10


def test_half_a_cpu_shows_steal(run: Run, article: tuple[str, ...]) -> None:
    container = run("--cpus", "0.5", *article)
    container.start(*BUSY_LOOP)
    windows, shown = watch(container)
    print(f"half a CPU: kernel {windows}, used {shown.used}, steal {shown.steal}")
    used = [window.used for window in windows]
    # Throttled time is counted for each CPU that has a waiting task: it may exceed what is free.
    steal = [min(window.throttled, 100 - window.used) for window in windows]
    assert max(used) < 50 + POINTS
    # On a machine with nothing else to do it is the other half.
    assert min(shown.steal.values()) > 0
    assert_all_near(shown.used, used)
    assert_all_near(shown.steal, steal)


def test_the_columns_of_stat_add_up_to_the_age(run: Run, article: tuple[str, ...]) -> None:
    container = run(*article)
    container.start(*BUSY_LOOP)
    text = container.shell("cat /proc/stat; cat /proc/uptime")
    age_s, idle_s = (float(number) for number in text.splitlines()[-1].split())
    lines = [line.split() for line in text.splitlines() if line.startswith("cpu")]
    rows = {line[0]: [int(number) for number in line[1:]] for line in lines}
    total = rows.pop("cpu")
    assert total == [sum(column) for column in zip(*rows.values(), strict=True)]
    for name, row in rows.items():
        assert sum(row) / 100 == pytest.approx(age_s, abs=0.2), name
    assert idle_s == pytest.approx(total[3] / 100, abs=0.4)
