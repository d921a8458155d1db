"""Machines that the tests of this level share: each is booted once, when first asked for."""

from collections.abc import Iterator, Mapping
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
        # A file that is left out may need what the machine does not have.
        words = {False: "--deselect", True: "--ignore"}
        left_out = [f"{words[test.endswith('.py')]}={_LEVEL}/{test}" for test in LEFT_OUT]
        options = ("-v", "--tb=short", "--durations=25", *left_out)
        yield start_pytest(booted, (_LEVEL, *options))


_LEVEL = "tests/integration"
_LEVELS = Path(__file__).with_name("test_levels.py")
_OF_NO_KERNEL = "says nothing of a kernel or of cgroups: what the host proves of it holds here too"
_TOO_MANY = "thousands of requests, which take minutes there"
_STARTS = "daemons, keepers and commands that are started over and over, which takes minutes there"
LEFT_OUT: Mapping[str, str] = {
    "test_accepted.py": _TOO_MANY,
    "test_agent.py": _STARTS,
    "test_attach.py::TestCommand": _OF_NO_KERNEL,
    "test_bad_input.py": _OF_NO_KERNEL,
    "test_concurrency.py::test_who_comes_last": _OF_NO_KERNEL,
    "test_keeper_pod.py": _STARTS,
    "test_mount.py::test_released_files": _TOO_MANY,
    "test_mount.py::test_walks_at_once": _TOO_MANY,
    "test_mount.py::test_with_more_files_open": _TOO_MANY,
    "test_node_mounts.py": _STARTS,
    "test_resources.py": _TOO_MANY,
    "test_security.py": _TOO_MANY,
    "test_serve.py::test_workers_that_are_killed": "test_faults.py does so on two kernels",
    "test_syscalls.py::test_a_read_costs_no_more_system_calls_than": (
        "what is read again after some milliseconds is read more often by a slow processor"
    ),
    "test_webhook.py": _OF_NO_KERNEL,
}
"""Tests of the level that are not run in a machine, by how their names begin; and why."""
