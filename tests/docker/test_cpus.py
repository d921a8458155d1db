"""`--cpus` and `--cpuset-cpus`: every file and every tool agrees on which CPUs there are.

What is asked for depends on the machine, so that the same tests hold on 2 and on 8 CPUs.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import pytest

from tests.docker import readings
from tests.docker.conftest import Run
from tests.docker.containers import Container
from tests.docker.engine import Engine
from tests.docker.test_memory import SEEN_WITHIN_S, until

HOST_CPUS = os.cpu_count() or 1
LARGEST_NPROC_THAT_ASKS_AFFINITY = 2


@dataclass(frozen=True)
class Case:
    """Options of `docker run`, and the CPUs that must be seen."""

    options: tuple[str, ...]
    visible: list[int]
    affinity: int
    """How many CPUs the kernel lets the container's processes run on."""

    @property
    def name(self) -> str:
        return " ".join(self.options)


def cases() -> list[Case]:
    """On any machine one CPU by quota; what else its CPUs allow."""
    found = [
        Case(("--cpus", "0.5"), [0], HOST_CPUS),
        Case(("--cpus", "1"), [0], HOST_CPUS),
        Case(("--cpuset-cpus", "0"), [0], 1),
    ]
    if HOST_CPUS >= 2:
        found.append(Case(("--cpuset-cpus", "1"), [1], 1))
        found.append(Case(("--cpuset-cpus", "0-1", "--cpus", "1"), [0], 2))
    if HOST_CPUS >= 4:
        found.append(Case(("--cpus", "1.5"), [0, 1], HOST_CPUS))
        found.append(Case(("--cpus", "3"), [0, 1, 2], HOST_CPUS))
        found.append(Case(("--cpuset-cpus", "2-3"), [2, 3], 2))
        found.append(Case(("--cpuset-cpus", "1-3", "--cpus", "2"), [1, 2], 3))
    return found


@pytest.fixture(scope="module", params=cases(), ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    chosen: Case = request.param
    return chosen


@pytest.fixture(scope="module")
def six_files(case: Case, module_run: Run, article: tuple[str, ...]) -> Container:
    """A container as the walk-through makes it."""
    return module_run(*case.options, *article)


@pytest.fixture(scope="module")
def container(case: Case, module_run: Run, all_views: tuple[str, ...]) -> Container:
    """A container with `sys/devices/system/cpu` too."""
    return module_run(*case.options, *all_views)


def test_the_six_files_agree(case: Case, six_files: Container) -> None:
    assert readings.cpuinfo_cpus(six_files.read("/proc/cpuinfo")) == case.visible
    assert readings.stat_cpus(six_files.read("/proc/stat")) == case.visible


def test_top_with_the_six_files(case: Case, six_files: Container) -> None:
    assert readings.top_cpus(six_files.run("top", "-b", "-n1", "-1", "-w512")) == case.visible


def test_cpuinfo_and_stat(case: Case, container: Container) -> None:
    assert readings.cpuinfo_cpus(container.read("/proc/cpuinfo")) == case.visible
    assert readings.stat_cpus(container.read("/proc/stat")) == case.visible


@pytest.mark.parametrize("name", ["online", "present", "possible"])
def test_lists_of_cpus(case: Case, container: Container, name: str) -> None:
    text = container.read(f"/sys/devices/system/cpu/{name}")
    assert readings.cpu_list(text) == case.visible


def test_folders_of_cpus(case: Case, container: Container) -> None:
    names = container.shell("cd /sys/devices/system/cpu && echo cpu[0-9]*").split()
    assert sorted(int(name.removeprefix("cpu")) for name in names) == case.visible


@pytest.mark.parametrize("variable", ["_NPROCESSORS_ONLN", "_NPROCESSORS_CONF"])
def test_getconf(case: Case, container: Container, variable: str) -> None:
    assert int(container.run("getconf", variable)) == len(case.visible)


def test_nproc_all(case: Case, container: Container) -> None:
    """Of one or two CPUs gnulib's num_processors() doubts the files, and asks the affinity too.

    A pure quota leaves the affinity mask at the whole host, which no file can change: only there
    it prints what the kernel says.
    """
    expected = len(case.visible)
    if expected <= LARGEST_NPROC_THAT_ASKS_AFFINITY:
        expected = max(expected, case.affinity)
    assert int(container.run("nproc", "--all")) == expected


def test_lscpu(case: Case, container: Container) -> None:
    fields = readings.lscpu(container.run("lscpu"))
    assert int(fields["CPU(s)"]) == len(case.visible)
    assert readings.cpu_list(fields["On-line CPU(s) list"]) == case.visible
    assert "Off-line CPU(s) list" not in fields


def test_top(case: Case, container: Container) -> None:
    assert readings.top_cpus(container.run("top", "-b", "-n1", "-1", "-w512")) == case.visible


def test_mpstat(case: Case, container: Container) -> None:
    shown = readings.mpstat_percentages(container.run("mpstat", "-P", "ALL", "1", "1"))
    assert sorted(int(cpu) for cpu in shown if cpu != "all") == case.visible


def test_htop_draws_a_meter_for_each(
    case: Case, engine: Engine, all_views: tuple[str, ...], run: Run
) -> None:
    """htop needs a terminal, which `docker run -t` gives it. It is read from what it has drawn."""
    terminal = ("-t", "-e", "TERM=xterm", "-e", "LINES=40", "-e", "COLUMNS=120")
    container = run(*terminal, *case.options, *all_views, command=("timeout", "1", "htop"))
    engine.docker("wait", container.id)
    screen = engine.docker("logs", container.id)
    assert readings.htop_cpus(screen) == case.visible, screen


def test_docker_update_of_cpus_is_seen_within_a_second(
    run: Run, all_views: tuple[str, ...]
) -> None:
    if HOST_CPUS < 2:
        pytest.skip("a machine of one CPU has nothing to change")
    container = run(*all_views)

    def seen() -> tuple[list[int], list[int], list[int]]:
        texts = re.split(
            "^====\n",
            container.shell(
                "cat /proc/cpuinfo; echo ====; cat /proc/stat; echo ====; "
                "cat /sys/devices/system/cpu/online"
            ),
            flags=re.MULTILINE,
        )
        return (
            readings.cpuinfo_cpus(texts[0]),
            readings.stat_cpus(texts[1]),
            readings.cpu_list(texts[2]),
        )

    everything = list(range(HOST_CPUS))
    assert seen() == (everything, everything, everything)
    for options, visible in (
        (("--cpus", "1"), [0]),
        (("--cpus", str(HOST_CPUS)), everything),
        (("--cpuset-cpus", "1"), [1]),
    ):
        container.engine.docker("update", *options, container.id)
        expected = (visible, visible, visible)
        took_s = until(lambda expected=expected: seen() == expected, SEEN_WITHIN_S)  # type: ignore[misc]
        print(f"docker update {' '.join(options)} seen after {took_s:.2f} s")
