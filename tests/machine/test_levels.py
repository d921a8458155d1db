"""The integration level again, inside a machine: pure cgroup v2, four CPUs, swap and PSI."""

import pytest

from tests.machine.harness.guest_tests import follow
from tests.machine.harness.machine import Process

LIMIT_S = 1500.0


@pytest.mark.timeout(LIMIT_S + 60)
def test_the_integration_level_holds_in_a_machine(integration_inside: Process) -> None:
    assert follow(integration_inside, timeout_s=LIMIT_S).status == 0
