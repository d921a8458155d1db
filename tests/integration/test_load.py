"""Load averages: the kernel's formula on the container's own tasks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from procscope.cgroup.hierarchy import discover
from procscope.containers.identity import Identifier
from procscope.daemon.sampler import Sampler
from procscope.ids import Pid
from procscope.linux.mountinfo import read_mountinfo
from procscope.observe.boottime import NS_PER_SECOND, boottime_ns
from procscope.observe.host import HostFiles
from procscope.observe.observatory import Observatory
from procscope.observe.records import RecordStore
from procscope.observe.registry import VIEWS
from procscope.views.loadavg import SAMPLE_INTERVAL_SECONDS, Load, decay, render
from tests.integration.agents import Agent, agent
from tests.integration.cgroups import Group, container
from tests.integration.files import proc
from tests.integration.waiting import eventually

INTERVAL_NS = SAMPLE_INTERVAL_SECONDS * NS_PER_SECOND


def burn() -> None:
    while True:
        pass


class Node:
    """A sampler that is told when to sample, and the views that show what it has found."""

    def __init__(self, state: Path) -> None:
        hierarchies = discover(read_mountinfo())
        records = RecordStore(str(state))
        self._identifier = Identifier()
        self._observatory = Observatory(hierarchies, HostFiles(), records)
        self._sampler = Sampler(hierarchies, records)
        self._now_ns = boottime_ns()

    def loadavg(self, reader: Agent) -> str:
        found = self._identifier.container_of(Pid(reader.pid))
        assert found is not None
        return self._observatory.render(VIEWS["loadavg"], found).decode()

    def sample(self, times: int) -> None:
        """As if `times` intervals had passed."""
        for _ in range(times):
            self._now_ns += INTERVAL_NS
            self._sampler.sample(self._now_ns)

    def close(self) -> None:
        self._identifier.close()
        self._observatory.close()
        for name in list(self._sampler._tracked):
            self._sampler._drop(name)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    one = Node(tmp_path)
    yield one
    one.close()


@pytest.fixture
def group() -> Iterator[Group]:
    with container() as one:
        yield one


def averages(text: str) -> list[str]:
    return text.split()[:3]


def after(load: Load, active: int, passes: int) -> Load:
    """One pass at a time, as the sampler does it: each rounds."""
    for _ in range(passes):
        load = decay(load, active)
    return load


def shown(load: Load) -> list[str]:
    return averages(render(load, 1, 1, 1).decode())


def expected(active: int, passes: int) -> list[str]:
    return shown(after(Load(), active, passes))


def wait_until_running(pid: int) -> None:
    eventually(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("R"))


@pytest.mark.parametrize("passes", [1, 12, 60, 400])
def test_two_busy_loops_follow_the_kernels_formula_and_a_sibling_stays_at_zero(
    node: Node, group: Group, passes: int
) -> None:
    with container() as sibling, agent(sibling) as neighbour, agent(group) as reader:
        assert averages(node.loadavg(reader)) == ["0.00"] * 3
        assert averages(node.loadavg(neighbour)) == ["0.00"] * 3
        with agent(group) as one, agent(group) as other:
            for busy in (one, other):
                busy.send(burn)
            for busy in (one, other):
                wait_until_running(busy.pid)
            node.sample(passes)
            text = node.loadavg(reader)
        assert averages(text) == expected(2, passes)
        assert averages(node.loadavg(neighbour)) == ["0.00"] * 3


def test_the_load_decays_when_the_work_is_done(node: Node, group: Group) -> None:
    with agent(group) as reader:
        node.loadavg(reader)
        with agent(group) as busy:
            busy.send(burn)
            wait_until_running(busy.pid)
            node.sample(30)
        node.sample(12)
        decayed = after(after(Load(), 1, 30), 0, 12)
        assert averages(node.loadavg(reader)) == shown(decayed)


def test_tasks_in_sub_cgroups_count(node: Node, group: Group) -> None:
    with group.plain_child("inner") as inner, agent(inner) as reader, agent(inner) as busy:
        node.loadavg(reader)
        busy.send(burn)
        wait_until_running(busy.pid)
        node.sample(20)
        assert averages(node.loadavg(reader)) == expected(1, 20)


def test_the_record_of_a_removed_container_goes(node: Node, tmp_path: Path) -> None:
    with container() as other, agent(other) as reader:
        node.loadavg(reader)
        node.sample(1)
        assert len(os.listdir(tmp_path)) == 1
    node.sample(1)
    assert os.listdir(tmp_path) == []


def test_tasks_and_the_newest_pid_are_the_containers(mount: Path, group: Group) -> None:
    with agent(group) as reader:
        text = proc(mount, "loadavg", reader).split()
        assert text[3] == "1/1"
        with agent(group) as newest:
            eventually(lambda: proc(mount, "loadavg", reader).split()[4] == str(newest.pid))
            eventually(lambda: proc(mount, "loadavg", reader).split()[3] == "1/2")


def test_the_daemons_own_sampler_samples(mount: Path, group: Group) -> None:
    """Once in its interval: bounded by two of them."""
    with agent(group) as reader, agent(group) as busy:
        busy.send(burn)
        wait_until_running(busy.pid)
        text = eventually(
            lambda: (
                averages(proc(mount, "loadavg", reader)) != ["0.00"] * 3
                and averages(proc(mount, "loadavg", reader))
            ),
            bound_s=2 * SAMPLE_INTERVAL_SECONDS,
        )
        # The reader, which asks all the time, may have been running in that moment too.
        assert text in (expected(1, 1), expected(2, 1))
