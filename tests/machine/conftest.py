"""Machines that the tests of this level share: each is booted once, when first asked for."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine.harness.guest_tests import copy_project, start_pytest
from tests.machine.harness.machine import Machine, Process
from tests.machine.harness.spec import MachineSpec


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """A machine with 4 CPUs, 2 GiB, swap and PSI, and the project in /opt/procscope."""
    with Machine(MachineSpec(cpus=4, memory_mib=2048, swap_mib=512)) as booted:
        copy_project(booted)
        yield booted


@pytest.fixture(scope="session")
def systemd_machine() -> Iterator[Machine]:
    """A machine with systemd, a lingering user `tester`, and the project in /opt/procscope."""
    with Machine(MachineSpec(cpus=2, memory_mib=1024, swap_mib=256, systemd=True)) as booted:
        copy_project(booted)
        booted.run(["systemctl", "is-system-running", "--wait"], timeout_s=120)
        yield booted


@pytest.fixture(scope="session", autouse=True)
def integration_inside(request: pytest.FixtureRequest) -> Iterator[Process | None]:
    """The integration level in a machine of its own, if `test_levels.py` is to be run.

    It is started with the first test and waited for by its own: it takes most of the time of this
    level, and each machine uses one CPU of the host.
    """
    if not any(item.path == _LEVELS for item in request.session.items):
        yield None
        return
    with Machine(MachineSpec(cpus=4, memory_mib=2048, swap_mib=512)) as booted:
        copy_project(booted)
        left_out = [word for test in _LEFT_OUT for word in ("--deselect", test)]
        left_out += [word for path in _TOO_SLOW for word in ("--ignore", path)]
        options = ("-v", "--tb=short", "--durations=10", *left_out)
        yield start_pytest(booted, ("tests/integration", *options))


# What is read again after some milliseconds is read more often by a processor as slow as an
# emulated one. What a read costs does not depend on the machine: the level itself proves it.
_LEFT_OUT = ("tests/integration/test_syscalls.py::test_a_read_costs_no_more_system_calls_than",)
_TOO_SLOW = tuple(
    f"tests/integration/test_{name}.py" for name in ("accepted", "attach", "security")
)
"""Tens of thousands of requests, or a daemon for each of many tests: half an hour in a machine."""
_LEVELS = Path(__file__).with_name("test_levels.py")
