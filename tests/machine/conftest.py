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
        yield start_pytest(booted, ("tests/integration", "-v", "--tb=short", "--durations=10"))


_LEVELS = Path(__file__).with_name("test_levels.py")
