"""The faults level on an old and on the newest kernel: 500 kills in full, all else scaled.

What needs a Docker engine is left out: it runs on the machine itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.machine.harness.guest_tests import copy_project, follow, start_pytest
from tests.machine.harness.machine import Machine
from tests.machine.harness.spec import MachineSpec

LIMIT_S = 1500.0
KERNELS = {
    "linux-6.1": MachineSpec(kernel_suite="bookworm", cpus=2, memory_mib=1536, scratch_mib=0),
    "newest": MachineSpec(kernel_suite="sid", cpus=2, memory_mib=1536, scratch_mib=0),
}
OPTIONS = ("-v", "--tb=short", "--durations=10")
# One of each kind: an emulated machine takes minutes for what takes seconds.
REPLACED = ("50_supervisors", "50_reloads", "healed_within")
SURROUNDED = ("planned_stop and options0", "frozen", "out_of_memory", "fills_while")
CHOSEN = {"linux-6.1": REPLACED, "newest": (*REPLACED, *SURROUNDED)}
LEFT_OUT = ("tests/faults/test_docker.py", "tests/faults/test_many_containers.py")


@pytest.fixture(scope="module", params=KERNELS)
def name(request: pytest.FixtureRequest) -> str:
    """One of the kernels."""
    chosen: str = request.param
    return chosen


@pytest.fixture(scope="module")
def kernel(name: str) -> Iterator[Machine]:
    """A machine with that kernel, and the project."""
    with Machine(KERNELS[name]) as machine:
        copy_project(machine)
        print(f"{name}: {machine.kernel_release}")
        yield machine


@pytest.mark.timeout(LIMIT_S + 60)
def test_500_workers_killed_lose_no_read(kernel: Machine) -> None:
    tests = ("tests/faults/test_workers.py", "-k", "500")
    assert follow(start_pytest(kernel, (*tests, *OPTIONS)), timeout_s=LIMIT_S).status == 0


@pytest.mark.timeout(LIMIT_S + 60)
def test_the_other_faults_are_not_seen(kernel: Machine, name: str) -> None:
    ignored = (word for path in LEFT_OUT for word in ("--ignore", path))
    tests = ("tests/faults", "-k", " or ".join(CHOSEN[name]), *ignored, *OPTIONS)
    variables = {"PROCSCOPE_FAULTS_SCALE": "0.06"}
    assert follow(start_pytest(kernel, tests, variables), timeout_s=LIMIT_S).status == 0
