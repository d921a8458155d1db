"""Machines that the tests of this level share: each is booted once, when first asked for."""

from collections.abc import Iterator

import pytest

from tests.machine.harness.guest_tests import copy_project
from tests.machine.harness.machine import Machine
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
