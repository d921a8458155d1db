"""`procscope run` by a user without root, on a machine with systemd as people have it."""

import pytest

from tests.machine.harness.guest_tests import PROJECT
from tests.machine.harness.machine import Completed, Machine

RUN = ("env", f"PYTHONPATH={PROJECT}/src", "python3", "-m", "procscope", "run")
SERVICE = ("systemd-run", "--user", "--machine=tester@", "--pipe", "--wait", "--quiet", "--collect")
LIMITS = ("--memory", "256m", "--cpus", "1")
LOOK = (
    "grep MemTotal: /proc/meminfo; getconf _NPROCESSORS_ONLN; cut -d: -f3 /proc/self/cgroup; id -u"
)


def look(machine: Machine, *command: str, user: str | None = None) -> Completed:
    """What a sandbox of 256 MiB and one CPU sees."""
    return machine.run([*command, *RUN, *LIMITS, "--", "sh", "-c", LOOK], user=user)


def mem_total_kb(done: Completed) -> int:
    return int(done.stdout.split()[1])


@pytest.mark.parametrize("user", [None, "tester"])
def test_a_delegated_cgroup_is_limited_and_shown(
    systemd_machine: Machine, user: str | None
) -> None:
    """In a service with a delegated cgroup, and from a plain login, which is moved to one.

    FUSE is mounted in the user namespace, by an unprivileged user.
    """
    command = () if user else (*SERVICE, "-pDelegate=yes")
    done = look(systemd_machine, *command, user=user)
    assert done.stderr == ""
    assert mem_total_kb(done) == 256 << 10
    assert done.stdout.split()[3] == "1"
    assert "/user@1000.service/app.slice/" in done.stdout
    assert done.stdout.split()[-1] == "0"


def test_what_is_not_delegated_is_told_in_a_line(systemd_machine: Machine) -> None:
    """A login that no service manager answers for: it runs, without limits, and says so."""
    nobody = ("env", "XDG_RUNTIME_DIR=/nonexistent")
    done = look(systemd_machine, *nobody, user="tester")
    assert len(done.stderr.splitlines()) == 1
    assert "not limited: --memory, --cpus: the cgroup" in done.stderr
    host = systemd_machine.run(["cat", "/proc/meminfo"]).stdout
    assert mem_total_kb(done) == int(host.split()[1])


def test_a_controller_that_is_not_delegated_is_told(systemd_machine: Machine) -> None:
    """systemd gives a service's cgroup the memory controller, and cpu only where it is asked to."""
    done = look(systemd_machine, *SERVICE)
    assert mem_total_kb(done) == 256 << 10
    if "not limited" in done.stderr:
        assert done.stdout.split()[3] == str(systemd_machine.spec.cpus)
        assert len(done.stderr.splitlines()) == 1
    else:
        assert done.stdout.split()[3] == "1"


def test_a_users_sandbox_leaves_nothing_behind(systemd_machine: Machine) -> None:
    look(systemd_machine, user="tester")
    assert "fuse.procscope" not in systemd_machine.run(["cat", "/proc/mounts"]).stdout
    left = "find /sys/fs/cgroup -name procscope; pgrep -f '[p]rocscope run'; true"
    assert systemd_machine.run(left).stdout == ""
