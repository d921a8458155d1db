"""The other levels again, inside a machine: pure cgroup v2, four CPUs, swap and PSI."""

import pytest

from tests.machine.harness.guest_tests import run_pytest
from tests.machine.harness.machine import Machine

QUIET = ("-q", "--tb=short", "--durations=10")


@pytest.mark.timeout(1500)
def test_the_integration_level_holds_in_the_machine(machine: Machine) -> None:
    done = run_pytest(machine, ("tests/integration", *QUIET), timeout_s=1400)
    assert done.status == 0


@pytest.mark.timeout(1500)
def test_the_docker_level_holds_in_the_machine(machine: Machine) -> None:
    done = run_pytest(machine, ("tests/docker", *QUIET), timeout_s=1400)
    assert done.status == 0
