"""Proves that a machine is what its spec says, and that the harness reports what happens in it."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.machine.harness import apt, engines
from tests.machine.harness.cache import cached
from tests.machine.harness.errors import (
    CommandFailedError,
    CommandTimeoutError,
    MachineError,
    MachineUnavailableError,
)
from tests.machine.harness.guest_tests import PROJECT
from tests.machine.harness.machine import Machine
from tests.machine.harness.spec import MachineSpec

CONTROLLERS = {"cpu", "cpuset", "io", "memory", "pids"}


def read(machine: Machine, path: str) -> str:
    return machine.run(["cat", path]).stdout


def mem_total_mib(machine: Machine) -> float:
    """MemTotal in MiB."""
    fields = dict(line.split(":") for line in read(machine, "/proc/meminfo").splitlines())
    return int(fields["MemTotal"].split()[0]) / 1024


def test_cpus_and_memory_are_the_specs(machine: Machine) -> None:
    assert machine.run(["nproc", "--all"]).stdout.strip() == str(machine.spec.cpus)
    # The kernel keeps a few percent for itself.
    assert 0.93 < mem_total_mib(machine) / machine.spec.memory_mib <= 1


def test_cgroup_v2_is_the_only_hierarchy_with_every_controller(machine: Machine) -> None:
    mounts = [line.split() for line in read(machine, "/proc/mounts").splitlines()]
    cgroups = [(fields[1], fields[2]) for fields in mounts if fields[2].startswith("cgroup")]
    assert cgroups == [("/sys/fs/cgroup", "cgroup2")]
    assert set(read(machine, "/sys/fs/cgroup/cgroup.subtree_control").split()) >= CONTROLLERS


def test_a_limit_on_a_cgroup_holds(machine: Machine) -> None:
    """A process in a cgroup of 32 MiB without swap cannot have 64 MiB."""
    script = """
        set -eu
        cgroup=/sys/fs/cgroup/limited; mkdir $cgroup; trap 'rmdir $cgroup' EXIT
        echo 32M > $cgroup/memory.max; echo 0 > $cgroup/memory.swap.max
        status=0
        hog="dd if=/dev/zero of=/dev/null bs=64M count=1"
        sh -c "echo 0 > $cgroup/cgroup.procs; exec $hog" 2>/dev/null || status=$?
        grep -x 'oom_kill 1' $cgroup/memory.events
        exit $status
    """
    done = machine.run(script, check=False)
    assert (done.status, done.stdout) == (128 + signal.SIGKILL, "oom_kill 1\n")


def test_pressure_is_measured(machine: Machine) -> None:
    for resource in ("cpu", "io", "memory"):
        assert read(machine, f"/proc/pressure/{resource}").startswith("some avg10=")
        assert "some" in read(machine, f"/sys/fs/cgroup/{resource}.pressure")


def test_swap_is_active(machine: Machine) -> None:
    size_kb = int(read(machine, "/proc/swaps").splitlines()[1].split()[2])
    assert machine.spec.swap_mib * 1024 - size_kb <= 4


def test_fuse_can_be_opened(machine: Machine) -> None:
    machine.run(["python3", "-c", "open('/dev/fuse', 'r+b', buffering=0)"])


def test_scratch_disk_takes_direct_writes_and_counts_them(machine: Machine) -> None:
    disk = "/dev/disk/by-id/virtio-scratch"
    name = os.path.basename(machine.run(["readlink", "-f", disk]).stdout.strip())

    def sectors_written() -> int:
        return int(read(machine, f"/sys/block/{name}/stat").split()[6])

    before = sectors_written()
    machine.run(["dd", "if=/dev/zero", f"of={disk}", "bs=1M", "count=16", "oflag=direct"])
    assert sectors_written() - before == 16 * 2048


def test_the_root_is_not_in_memory(machine: Machine) -> None:
    assert machine.run(["findmnt", "-no", "FSTYPE", "/"]).stdout.strip() == "ext4"


def test_status_output_and_input_of_a_command(machine: Machine) -> None:
    done = machine.run("cat; echo problem >&2; exit 7", stdin="given", check=False)
    assert (done.status, done.stdout, done.stderr) == (7, "given", "problem\n")
    with pytest.raises(CommandFailedError, match=r"status 7(.|\n)*problem"):
        machine.run("echo problem >&2; exit 7")
    assert machine.run("kill -9 $$", check=False).status == -signal.SIGKILL
    with pytest.raises(MachineError, match="FileNotFoundError"):
        machine.run(["/no/such/program"])


def test_environment_directory_and_user_of_a_command(machine: Machine) -> None:
    done = machine.run("id -un; pwd; echo $WORD", user="tester", cwd="/tmp", env={"WORD": "w"})
    assert done.stdout.split() == ["tester", "/tmp", "w"]


def test_a_command_over_its_time_is_killed(machine: Machine) -> None:
    with pytest.raises(CommandTimeoutError, match=r"timed out(.|\n)*begun"):
        machine.run("echo begun; sleep infinity & wait", timeout_s=1)
    assert machine.run(["pgrep", "-f", "[s]leep infinity"], check=False).status == 1


def test_commands_run_at_the_same_time(machine: Machine) -> None:
    """Each of three commands ends only when the other two run too."""
    script = "mkfifo /tmp/$0 2>/dev/null; echo > /tmp/{next} & read x < /tmp/$0; wait; rm /tmp/$0"
    machine.run("mkfifo /tmp/one /tmp/two /tmp/three")
    ring = {"one": "two", "two": "three", "three": "one"}
    started = [machine.spawn(["sh", "-c", script.format(next=to), at]) for at, to in ring.items()]
    assert [process.wait().status for process in started] == [0, 0, 0]


def test_a_background_command_shows_its_output_while_it_runs(machine: Machine) -> None:
    process = machine.spawn("echo first; exec sleep infinity")
    while "first" not in process.stdout:
        assert process.poll(0.1) is None
    process.kill(signal.SIGKILL)
    assert process.wait().status == -signal.SIGKILL


def test_files_go_in_and_come_out_as_they_are(machine: Machine, tmp_path: Path) -> None:
    content = os.urandom(3 << 20)
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "data").write_bytes(content)
    (source / "tool").write_text("#!/bin/sh\necho works\n")
    (source / "tool").chmod(0o755)
    machine.copy_in(source, "/var/tmp/copied")
    assert machine.run(["/var/tmp/copied/tool"]).stdout == "works\n"
    assert machine.read_file("/var/tmp/copied/sub/data") == content
    machine.copy_out("/var/tmp/copied", tmp_path / "back")
    assert (tmp_path / "back" / "sub" / "data").read_bytes() == content
    machine.run(["rm", "-r", "/var/tmp/copied"])


def test_the_project_is_in_the_machine(machine: Machine) -> None:
    machine.run(["test", "-f", f"{PROJECT}/src/procscope/cgroup/model.py"])
    machine.run(["test", "-f", f"{PROJECT}/tests/levels.py"])


def test_docker_runs_a_limited_container(machine: Machine) -> None:
    limits = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory.swap.max /sys/fs/cgroup/cpu.max"
    options = ("--memory=64m", "--memory-swap=96m", "--cpus=1.5")
    with engines.docker(machine):
        command = ["docker", "run", "--rm", *options, engines.IMAGE, "sh", "-c", limits]
        done = machine.run(command)
    assert done.stdout.split() == [str(64 << 20), str(32 << 20), "150000", "100000"]


def test_podman_with_crun_runs_a_limited_container(machine: Machine) -> None:
    limits = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max"
    options = ("--network=none", "--memory=64m", "--cpus=1.5")
    with engines.podman(machine) as podman:
        command = [*podman, "run", "--rm", *options, engines.IMAGE, "sh", "-c", limits]
        done = machine.run(command)
    assert done.stdout.split() == [str(64 << 20), "150000", "100000"]


def test_systemd_runs_and_delegates_to_a_user(systemd_machine: Machine) -> None:
    """A user without root gets a cgroup that is theirs to divide."""
    script = 'mkdir "/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/mine" && echo made'
    options = ("--user", "--machine=tester@", "--pipe", "--wait", "--quiet", "--collect")
    command = ["systemd-run", *options, "-pDelegate=yes", "sh", "-c", script]
    assert systemd_machine.run(command).stdout == "made\n"
    assert systemd_machine.run(["readlink", "/proc/1/exe"]).stdout.endswith("/systemd\n")


def test_a_machine_with_eight_cpus_on_two_nodes_leaves_nothing_behind() -> None:
    spec = MachineSpec(cpus=8, memory_mib=1024, numa_nodes=2, scratch_mib=0)
    with Machine(spec) as machine:
        pid = machine.qemu.process.pid
        assert read(machine, "/sys/devices/system/cpu/online") == "0-7\n"
        assert read(machine, "/sys/devices/system/node/node1/cpulist") == "4-7\n"
        assert 0.93 < mem_total_mib(machine) / 1024 <= 1
    assert not Path(f"/proc/{pid}").exists()


def test_a_machine_that_does_not_boot_is_reported_with_its_console() -> None:
    spec = MachineSpec(cpus=1, kernel_args=("rdinit=/no/such/init", "root=/dev/none"))
    with pytest.raises(MachineError, match=r"boot failed(.|\n)*panic"), Machine(spec):
        pytest.fail("it booted")


def test_two_builds_of_one_result_become_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROCSCOPE_CACHE", str(tmp_path))
    built: list[float] = []

    def build(directory: Path) -> None:
        built.append(time.monotonic())
        (directory / "result").write_text("whole")

    def fail(directory: Path) -> None:
        (directory / "result").write_text("half")
        raise MachineError("failed")

    with pytest.raises(MachineError):
        cached("thing", fail)
    assert not (tmp_path / "machine" / "thing").exists()
    assert cached("thing", build) == cached("thing", build)
    assert len(built) == 1


# The archive of security updates comes first and is not the one.
STANZAS = """\
Types: deb
URIs: http://security.test/debian-security
Suites: stable-security
Components: main

# A comment.
Types: deb
URIs: http://mirror.test/debian/
Suites: stable stable-updates
Components: main contrib
"""
LINES = "# a comment\ndeb [signed-by=/k] http://mirror.test/debian stable main contrib\n"


@pytest.mark.parametrize(
    ("name", "text"), [("sources.list.d/a.sources", STANZAS), ("sources.list", LINES)]
)
def test_the_mirror_is_the_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.delenv("PROCSCOPE_DEBIAN_MIRROR", raising=False)
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert apt.debian_mirror(tmp_path) == "http://mirror.test/debian"
    path.write_text("garbage\n")
    with pytest.raises(MachineUnavailableError, match="PROCSCOPE_DEBIAN_MIRROR"):
        apt.debian_mirror(tmp_path)
