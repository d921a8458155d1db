"""`procscope keeper`: outlives agents, and is the last one to turn off the light."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from procscope.linux import syscalls
from procscope.linux.mountinfo import read_mountinfo
from tests.faults.readers import bind_files
from tests.integration.agents import Agent, agent
from tests.integration.cgroups import container
from tests.integration.daemons import procscope_command
from tests.integration.nodes import HttpPod, Node, Pod, node
from tests.integration.waiting import eventually

MIB = 1 << 20


@pytest.fixture
def here() -> Iterator[Node]:
    with node() as one:
        yield one


@pytest.fixture
def pods(here: Node) -> tuple[Pod, HttpPod]:
    """A keeper that holds what an agent has."""
    keeper = here.keeper("--patience", "0.5")
    serving = here.agent()
    serving.becomes_ready()
    keeper.says("holding the daemon's descriptors")
    return keeper, serving


@pytest.fixture
def inside(pods: tuple[Pod, HttpPod], here: Node) -> Iterator[Agent]:
    """A process in a container that has the files at their places."""
    del pods  # they only have to be there
    with container(memory_bytes=100 * MIB) as group, agent(group) as one:
        one.call(bind_files, here.mountpoint)
        assert memtotal_kb(one) == 100 << 10
        yield one


def memtotal_kb(one: Agent) -> int:
    return int(one.call(Path.read_text, Path("/proc/meminfo")).split()[1])


def views(here: Node, one: Agent) -> list[str]:
    """What is mounted of this node's agents where the process is."""
    mounts = one.call(read_mountinfo)
    return [mount.mount_point for mount in mounts if mount.source == str(here.mountpoint)]


def sees_the_host(here: Node, one: Agent) -> bool:
    return views(here, one) == [] and memtotal_kb(one) > 100 << 10


def nothing_is_left(here: Node) -> bool:
    return here.mounted() == 0 and not here.processes()


def test_a_second_one_is_refused(pods: tuple[Pod, HttpPod], here: Node) -> None:
    ended = procscope_command("keeper", *here.names)
    assert ended.returncode == 1
    assert f"has a keeper already, process {pods[0].pid}" in ended.stderr


def test_a_stale_socket_is_taken_over(pods: tuple[Pod, HttpPod], here: Node) -> None:
    pods[0].kill()
    pods[1].says("the keeper has ended; waiting for another")
    here.keeper().says("holding the daemon's descriptors")


def test_a_killed_agent_is_succeeded_without_an_error(
    pods: tuple[Pod, HttpPod], here: Node, inside: Agent
) -> None:
    """Who reads meanwhile waits."""
    keeper, serving = pods
    serving.kill()
    inside.send(Path.read_text, Path("/proc/meminfo"))
    here.agent().becomes_ready()
    text = inside.receive()
    assert isinstance(text, str)
    assert text.split()[1] == str(100 << 10)
    assert keeper.process.poll() is None


def test_it_ends_while_an_agent_serves(
    pods: tuple[Pod, HttpPod], here: Node, inside: Agent
) -> None:
    keeper, serving = pods
    keeper.terminate()
    assert keeper.ends() == 0
    keeper.says("a daemon serves on")
    assert memtotal_kb(inside) == 100 << 10
    serving.becomes_ready()
    # The agent is the last one now.
    serving.terminate()
    assert serving.ends() == 0
    assert sees_the_host(here, inside)
    assert nothing_is_left(here)


def test_an_agent_that_ends_leaves_all_to_it(
    pods: tuple[Pod, HttpPod], here: Node, inside: Agent
) -> None:
    keeper, serving = pods
    serving.terminate()
    assert serving.ends() == 0
    assert keeper.process.poll() is None
    assert here.mounted() == 1
    here.agent().becomes_ready()
    assert memtotal_kb(inside) == 100 << 10


def test_the_last_one_turns_off_the_light(
    pods: tuple[Pod, HttpPod], here: Node, inside: Agent
) -> None:
    """No worker is left to answer: a read that waits gets the host's bytes."""
    keeper, serving = pods
    serving.kill()
    inside.send(Path.read_text, Path("/proc/meminfo"))
    keeper.terminate()
    assert keeper.ends() == 0
    text = inside.receive()
    assert isinstance(text, str)
    assert int(text.split()[1]) > 100 << 10
    assert sees_the_host(here, inside)
    assert nothing_is_left(here)


CPUS = "/sys/devices/system/cpu"


def hide_a_file_in_the_folder(mountpoint: Path) -> None:
    """Mount the folder of CPUs, and something on a file in it, as runtimes do to hide files."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
    syscalls.mount(f"{mountpoint}{CPUS}", CPUS, None, syscalls.MS_BIND)
    syscalls.mount("/proc/version", f"{CPUS}/online", None, syscalls.MS_BIND)


def test_the_way_to_a_mount_below_a_folder_of_ours_leads_through_no_dead_end(
    pods: tuple[Pod, HttpPod], here: Node
) -> None:
    keeper, serving = pods
    with agent() as inside:
        inside.call(hide_a_file_in_the_folder, here.mountpoint)
        hidden = inside.call(Path.read_text, Path(f"{CPUS}/online"))
        serving.kill()
        keeper.terminate()
        assert keeper.ends() == 0
        assert views(here, inside) == []
        assert inside.call(Path.read_text, Path(f"{CPUS}/online")) == hidden
        assert "no end after" not in keeper.log()


def test_what_it_took_away_the_next_agent_gives_back(
    pods: tuple[Pod, HttpPod], here: Node, inside: Agent
) -> None:
    keeper, serving = pods
    serving.kill()
    keeper.terminate()
    assert keeper.ends() == 0
    assert sees_the_host(here, inside)
    later = here.agent()
    later.says("given back")
    assert memtotal_kb(inside) == 100 << 10


IMPATIENT = """
import sys
from procscope.daemon import logs
from procscope.daemon.config import ServeConfig
from procscope.daemon.nodekeeper import NodeKeeper
logs.configure(debug=False)
config = ServeConfig(mountpoint=sys.argv[1], run_directory=sys.argv[3], cares_for_containers=True)
sys.exit(NodeKeeper(config, 0.1, alone_s=0.3).run())
"""


def test_without_any_agent_for_long_it_takes_everything_away(here: Node) -> None:
    """And is there for the next one."""
    here.keeper_command = (sys.executable, "-c", IMPATIENT)
    keeper = here.keeper()
    serving = here.agent()
    serving.becomes_ready()
    keeper.says("holding the daemon's descriptors")
    with container(memory_bytes=100 * MIB) as group, agent(group) as inside:
        inside.call(bind_files, here.mountpoint)
        serving.kill()
        inside.send(Path.read_text, Path("/proc/meminfo"))
        keeper.says("no daemon has come")
        inside.receive()
        eventually(lambda: sees_the_host(here, inside))
        eventually(lambda: here.mounted() == 0)
        here.agent().says("given back")
        keeper.says("holding the daemon's descriptors", times=2)
        assert memtotal_kb(inside) == 100 << 10


@pytest.mark.parametrize("first", ["agent", "keeper"])
def test_both_terminated_at_the_same_moment_leave_nothing(
    pods: tuple[Pod, HttpPod], here: Node, inside: Agent, first: str
) -> None:
    order = pods if first == "keeper" else tuple(reversed(pods))
    for pod in order:
        pod.terminate()
    assert [pod.ends() for pod in order] == [0, 0]
    assert sees_the_host(here, inside)
    assert nothing_is_left(here)


def test_an_agent_that_comes_in_time_goes_on_without_it(here: Node) -> None:
    keeper = here.keeper("--patience", "60")
    serving = here.agent()
    serving.becomes_ready()
    keeper.says("holding the daemon's descriptors")
    device = os.stat(here.mountpoint).st_dev
    serving.kill()
    keeper.terminate()
    keeper.says("waiting 60 s for one")
    later = here.agent()
    later.becomes_ready()
    assert keeper.ends() == 0
    assert os.stat(here.mountpoint).st_dev == device, "it is the same mount"


def test_everything_killed_is_healed(pods: tuple[Pod, HttpPod], here: Node, inside: Agent) -> None:
    for pod in pods:
        for pid in pod.processes():
            os.kill(pid, signal.SIGKILL)
    for pod in pods:
        pod.kill()
    later = here.agent()
    later.says("attached again")
    eventually(lambda: memtotal_kb(inside) == 100 << 10)
    assert here.mounted() == 1
