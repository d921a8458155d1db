"""What happens to a node's agents and keepers, in a cluster's daily life, reaches no container."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.figures import figure
from tests.faults.readers import Crowd, crowd
from tests.faults.scale import scaled
from tests.integration.daemons import procscope_command
from tests.integration.nodes import HttpPod, Node, Pod, node


@pytest.fixture
def here() -> Iterator[Node]:
    with node() as one:
        yield one


def started(here: Node) -> tuple[Pod, HttpPod]:
    """A keeper that holds what an agent has."""
    keeper = here.keeper()
    serving = here.agent()
    serving.becomes_ready()
    keeper.says("holding the daemon's descriptors")
    return keeper, serving


def finish(here: Node, readers: Crowd, what: str) -> None:
    readers.read_some()
    tally = readers.stop()
    figure(f"{what}: {tally}")
    tally.all_right()
    done = procscope_command("stop", *here.names)
    assert (done.returncode, done.stderr) == (0, "")


def test_rollouts(here: Node) -> None:
    """A newer pod beside the older, which is deleted once the newer one is ready."""
    _, serving = started(here)
    with crowd(here.mountpoint) as readers:
        for _ in range(scaled(10)):
            newer = here.agent()
            newer.becomes_ready()
            serving.terminate()
            assert serving.ends() == 0
            readers.read_some()
            serving = newer
        finish(here, readers, "agents handed over")


def test_rollouts_without_a_keeper(here: Node) -> None:
    serving = here.agent()
    serving.becomes_ready()
    with crowd(here.mountpoint) as readers:
        for _ in range(scaled(5)):
            newer = here.agent()
            newer.becomes_ready()
            serving.terminate()
            assert serving.ends() == 0
            serving = newer
        finish(here, readers, "agents handed over without a keeper")


def test_a_rollout_that_fails(here: Node) -> None:
    """Each newer agent is killed; the one that stands by serves again."""
    _, serving = started(here)
    with crowd(here.mountpoint) as readers:
        for number in range(1, scaled(5) + 1):
            newer = here.agent()
            newer.becomes_ready()
            newer.kill()
            serving.says("the newer agent has gone", times=number)
            readers.read_some()
        finish(here, readers, "newer agents killed")


def test_agents_that_are_killed(here: Node) -> None:
    """With all of their processes; readers wait for the next one."""
    _, serving = started(here)
    with crowd(here.mountpoint) as readers:
        for _ in range(scaled(10)):
            serving.kill()
            serving = here.agent()
            serving.becomes_ready()
            readers.read_some()
        finish(here, readers, "agents killed")


def test_agents_that_are_deleted(here: Node) -> None:
    _, serving = started(here)
    with crowd(here.mountpoint) as readers:
        for _ in range(scaled(10)):
            serving.terminate()
            assert serving.ends() == 0
            serving = here.agent()
            serving.becomes_ready()
            readers.read_some()
        finish(here, readers, "agents deleted")


def test_keepers_that_are_deleted_or_killed(here: Node) -> None:
    keeper, serving = started(here)
    with crowd(here.mountpoint) as readers:
        for number in range(scaled(10)):
            if number % 2:
                keeper.kill()
            else:
                keeper.terminate()
                assert keeper.ends() == 0
            keeper = here.keeper()
            keeper.says("holding the daemon's descriptors")
            readers.read_some()
        assert serving.process.poll() is None
        finish(here, readers, "keepers deleted and killed")
