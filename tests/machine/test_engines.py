"""Docker with runc, podman with crun, on cgroup v2: the walk-through, and what differs there."""

import json
import shlex
from collections.abc import Iterator

import pytest

from tests.machine.fidelity import tools
from tests.machine.fidelity.subjects import COLLECT, PROCSCOPE, serving
from tests.machine.harness import engines
from tests.machine.harness.machine import Machine

LXCFS = "/var/lib/lxcfs"
ARTICLE = " ".join(
    f"-v {LXCFS}/proc/{name}:/proc/{name}:rw"
    for name in ("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime")
)
SLEEP = "sleep infinity"


class Docker:
    """Docker in a machine, with an image that has the machine's tools."""

    def __init__(self, machine: Machine, image: str, all_views: str) -> None:
        self.machine = machine
        self.all_views = all_views
        self.image = image

    def start(self, options: str, command: str = SLEEP) -> str:
        """Start a container and return its id."""
        words = f"docker run -d {options} {engines.HOST_FOLDERS} {self.image} {command}"
        return self.machine.run(words).stdout.strip()

    def sh(self, container: str, script: str) -> str:
        """Run a shell command in a container."""
        return self.machine.run(["docker", "exec", container, "sh", "-c", script]).stdout

    def remove(self, *containers: str) -> None:
        self.machine.run(["docker", "rm", "-f", *containers])


@pytest.fixture(scope="module")
def docker(machine: Machine) -> Iterator[Docker]:
    """Docker, and the daemon where the walk-through wants it."""
    with engines.docker(machine), serving(machine, mountpoint=LXCFS):
        image = engines.host_image(machine, ("docker",))
        views = machine.run(f"{PROCSCOPE} docker-args --mountpoint {LXCFS}").stdout.strip()
        yield Docker(machine, image, views)


@pytest.fixture(scope="module")
def small(docker: Docker) -> Iterator[str]:
    """A container as in the walk-through: six files, 256 MiB, one and a half CPUs."""
    container = docker.start(f"{ARTICLE} -m 256m --cpus 1.5")
    yield container
    docker.remove(container)


@pytest.fixture(scope="module")
def half(docker: Docker) -> Iterator[str]:
    """A container that would like a whole CPU and has half of one."""
    loop = "sh -c 'while :; do :; done'"
    container = docker.start(f"{docker.all_views} --cpus 0.5", loop)
    yield container
    docker.remove(container)


def test_the_walk_throughs_files_tell_the_limits(docker: Docker, small: str) -> None:
    assert tools.MEMORY["free -k"](docker.sh(small, "free -k")) == 256 << 20
    for name in ("/proc/cpuinfo", "/proc/stat"):
        assert tools.CPUS[name](docker.sh(small, f"cat {name}")) == [0, 1]
    assert tools.CPUS["top"](docker.sh(small, "top -b -1 -n 1 -w 120")) == [0, 1]


def test_a_changed_limit_is_there_when_docker_update_returns(docker: Docker, small: str) -> None:
    for size_mib in (128, 256):
        size = f"{size_mib}m"
        docker.machine.run(["docker", "update", "-m", size, "--memory-swap", "512m", small])
        assert tools.MEMORY["free -k"](docker.sh(small, "free -k")) == size_mib << 20


def test_direct_writes_are_counted_within_two_percent(docker: Docker, small: str) -> None:
    write = "dd if=/dev/zero of=/var/tmp/x bs=1M count=64 oflag=direct status=none"
    before = tools.WRITTEN["/proc/diskstats"](docker.sh(small, "cat /proc/diskstats"))
    after = tools.WRITTEN["/proc/diskstats"](docker.sh(small, f"{write}; cat /proc/diskstats"))
    assert abs((after - before) / (64 << 20) - 1) <= 0.02


def test_the_cpus_of_a_cpuset_keep_their_ids_in_every_tool(docker: Docker) -> None:
    options = f"--rm {docker.all_views} --cpuset-cpus 2-3 {engines.HOST_FOLDERS}"
    command = f"docker run {options} {docker.image} {COLLECT} container rest"
    rest = json.loads(docker.machine.run(command, timeout_s=120).stdout)["rest"]
    told = {
        tool: parse(rest[tools.SAMPLE_OF.get(tool, tool)]["text"])
        for tool, parse in tools.CPUS.items()
        if tool != "lscpu, NUMA lines"
    }
    # Some tell a number only, psutil and getconf two of them.
    assert {tool: ids for tool, ids in told.items() if ids not in (2, [2, 2], [2, 3])} == {}


def test_what_a_quota_withholds_is_stolen_and_a_sibling_is_idle(
    docker: Docker, small: str, half: str
) -> None:
    """The busy container has one CPU; half of it is used, half is withheld."""
    idle_before = docker.sh(small, "cat /proc/stat")
    mpstat = docker.sh(half, "mpstat 4 1")
    fields = dict(zip(_HEADS, map(float, mpstat.splitlines()[-1].split()[2:]), strict=True))
    assert fields["usr"] + fields["sys"] == pytest.approx(50, abs=6)
    assert fields["steal"] == pytest.approx(50, abs=6)
    assert fields["idle"] < 3
    idle = _columns(docker.sh(small, "cat /proc/stat")) - _columns(idle_before)
    assert idle > 2 * 4 * 100 * 0.8, "ticks of two CPUs over four seconds, without the two execs"


_HEADS = ("usr", "nice", "sys", "iowait", "irq", "soft", "steal", "guest", "gnice", "idle")


def _columns(stat: str) -> int:
    """The idle ticks of all CPUs."""
    return int(stat.split()[4])


def test_load_and_uptime_are_the_containers(docker: Docker, half: str) -> None:
    """Uptime counts from the start of its first process, which the kernel tells in ticks."""
    look = "cat /proc/uptime /proc/loadavg; awk '{print $22}' /proc/1/stat"
    before_s = _uptime_s(docker.machine)
    uptime, _, load, *_, start_ticks = docker.sh(half, look).split()
    after_s = _uptime_s(docker.machine)
    assert before_s - 0.05 <= float(uptime) + int(start_ticks) / 100 <= after_s + 0.05
    assert 0 < float(load) < 2


def _uptime_s(machine: Machine) -> float:
    return float(machine.read_file("/proc/uptime").split()[0])


def test_podman_with_crun_takes_the_pressure_files_too(machine: Machine, docker: Docker) -> None:
    """crun has no list of files in /proc that may be mounted over."""
    names = ("cpu", "io", "memory")
    pressure = " ".join(f"-v {LXCFS}/proc/pressure/{name}:/proc/pressure/{name}" for name in names)
    look = "cat /proc/meminfo; cat /proc/pressure/memory"
    with engines.podman(machine) as podman:
        options = f"--network=none {docker.all_views} {pressure} -m 256m --memory-swap 256m"
        command = f"{shlex.join(podman)} run --rm {options} {engines.IMAGE} sh -c '{look}'"
        told = machine.run(command, timeout_s=120).stdout
    assert tools.MEMORY["/proc/meminfo"](told) == 256 << 20
    some, full = told.splitlines()[-2:]
    assert some.startswith("some avg10=0.00 ")
    assert full.startswith("full avg10=0.00 ")
