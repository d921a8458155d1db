"""The daemon on an older kernel and Python: Linux 6.1 and Debian 12."""

from collections.abc import Iterator

import pytest

from tests.machine.fidelity.subjects import MOUNTPOINT, PROCSCOPE, serving
from tests.machine.harness.guest_tests import PROJECT, copy_project
from tests.machine.harness.machine import Machine
from tests.machine.harness.spec import MachineSpec

# Readers in one sandbox at once, so that both workers answer: each line must add up to its age,
# nothing may go backwards, and no file may be cut.
READERS = f"{PROJECT}/tests/machine/readers.py"


@pytest.fixture(scope="module")
def old() -> Iterator[Machine]:
    with Machine(MachineSpec(suite="bookworm", cpus=4, memory_mib=1536, swap_mib=256)) as machine:
        copy_project(machine)
        yield machine


def test_the_kernel_is_old(old: Machine) -> None:
    assert old.kernel_release.startswith("6.1.")


def test_run_without_a_daemon(old: Machine) -> None:
    tools = "free -k | awk '/^Mem/ {print $2}'; nproc --all; nproc; getconf _NPROCESSORS_ONLN"
    limits = "--memory 256m --cpus 2"
    done = old.run(f'{PROCSCOPE} run {limits} -- sh -c "{tools}"'.replace("$", "\\$"))
    assert done.stdout.split() == [str(256 << 10), "2", "2", "2"]
    assert done.stderr == ""


def test_many_readers_of_two_workers(old: Machine) -> None:
    with serving(old, "--workers 2"):
        run = f"{PROCSCOPE} run --memory 256m --cpus 1.5 -- python3 {READERS} 8 20"
        assert old.run(run, timeout_s=120).stdout == "8 readers: ok\n"


def test_iostat_of_diskstats(old: Machine) -> None:
    """64 MiB past the page cache are seen within 2 %."""
    write = "dd if=/dev/zero of=/var/tmp/x bs=1M count=64 oflag=direct status=none"
    done = old.run(f"{PROCSCOPE} run --memory 256m -- sh -c '{write}; iostat -d -k -p ALL'")
    written_kb = sum(float(x.split()[6]) for x in done.stdout.splitlines() if x.startswith("vd"))
    assert abs(written_kb - (64 << 10)) <= 0.02 * (64 << 10)


def test_the_mount_is_gone_in_the_end(old: Machine) -> None:
    assert MOUNTPOINT not in old.run(["cat", "/proc/mounts"]).stdout
