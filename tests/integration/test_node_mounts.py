"""Mount namespaces of a node: the host's, the pods' that share it, and those of bystanders.

Where the agent mounts and unmounts in its pod, the host does the same; nobody gets two of it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from procscope.linux import syscalls
from tests.faults.readers import bind_files
from tests.integration.agents import Agent, agent
from tests.integration.cgroups import container
from tests.integration.daemons import mounted_types
from tests.integration.nodes import Node, node
from tests.integration.waiting import eventually

MIB = 1 << 20
_HOST = 'mount --bind "$0" "$0" && mount --make-shared "$0" && echo ready && exec sleep infinity'


@contextmanager
def host(shared: Path) -> Iterator[int]:
    """A process in a mount namespace that shares the mounts below one folder with its pods."""
    command = ["unshare", "--mount", "sh", "-c", _HOST, str(shared)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield process.pid
        finally:
            process.kill()


@pytest.fixture
def here() -> Iterator[Node]:
    with node() as one:
        yield one


@pytest.fixture
def its_host(here: Node) -> Iterator[int]:
    with host(here.mountpoint.parent) as pid:
        into = ("nsenter", "--mount", "--target", str(pid))
        here.prefix = (*into, "unshare", "--mount", "--propagation", "unchanged")
        yield pid


def join(one: Agent, host_pid: int, propagation: int) -> None:
    """Let a process have a copy of the host's mounts, as a container with a hostPath has it."""
    one.call(_join, host_pid, propagation)


def _join(host_pid: int, propagation: int) -> None:
    namespace = os.open(f"/proc/{host_pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    syscalls.setns(namespace, syscalls.CLONE_NEWNS)
    os.close(namespace)
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", None, syscalls.MS_REC | propagation)


def memtotal_kb(one: Agent) -> int:
    return int(one.call(Path.read_text, Path("/proc/meminfo")).split()[1])


def count(here: Node, pid: int) -> int:
    return len(mounted_types(here.mountpoint, pid))


def kill_all(here: Node) -> None:
    for pod in here.pods:
        pod.kill()


def test_kills_leave_one_mount_on_the_host(here: Node, its_host: int) -> None:
    for _ in range(5):
        here.keeper()
        pod = here.agent()
        pod.becomes_ready()
        assert count(here, its_host) == 1
        assert count(here, pod.pid) == 1
        kill_all(here)
        assert count(here, its_host) == 1, "a dead one is left"
    last = here.agent()
    last.becomes_ready()
    last.terminate()
    assert last.ends() == 0
    assert count(here, its_host) == 0


def test_the_keeper_unmounts_for_the_host(here: Node, its_host: int) -> None:
    """It was started before the agent had mounted."""
    keeper = here.keeper("--patience", "0.1")
    keeper.says("ready to hold")
    pod = here.agent()
    pod.becomes_ready()
    keeper.says("holding the daemon's descriptors")
    assert count(here, keeper.pid) == 1
    pod.kill()
    keeper.terminate()
    assert keeper.ends() == 0
    assert count(here, its_host) == 0


def test_containers_are_healed_from_within_a_pod(here: Node, its_host: int) -> None:
    with container(memory_bytes=100 * MIB) as group, agent(group) as one:
        here.agent().becomes_ready()
        join(one, its_host, syscalls.MS_SLAVE)
        one.call(bind_files, here.mountpoint)
        for _ in range(2):
            kill_all(here)
            here.agent().says("attached again")
            eventually(lambda: memtotal_kb(one) == 100 << 10)
        later = here.pods[-1]
        later.terminate()
        assert later.ends() == 0
        assert memtotal_kb(one) > 100 << 10, "the host's own file"
        again = here.agent()
        again.says("given back")
        assert memtotal_kb(one) == 100 << 10


@pytest.mark.parametrize("propagation", [syscalls.MS_SLAVE, syscalls.MS_PRIVATE])
def test_a_bystander_has_one_living_mount(here: Node, its_host: int, propagation: int) -> None:
    """A pod that mounts a folder above ours, such as a node exporter: at its place, or healed."""
    with agent() as one:
        here.agent().becomes_ready()
        join(one, its_host, propagation)
        for _ in range(2):
            kill_all(here)
            here.agent().becomes_ready()
            eventually(lambda: one.call(can_be_read, here.mountpoint))
            assert count(here, one.pid) == 1


def can_be_read(mountpoint: Path) -> bool:
    try:
        return (mountpoint / "proc/meminfo").read_text().startswith("MemTotal:")
    except OSError:
        return False
