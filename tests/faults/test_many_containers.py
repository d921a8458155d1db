"""Thousands of containers that come and go: what the daemon has then is what it had before."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.figures import figure
from tests.faults.readers import MIB, Tally, crowd
from tests.faults.scale import scaled
from tests.faults.service import Service, service
from tests.integration import agents
from tests.integration.agents import agent, fork
from tests.integration.cgroups import container
from tests.integration.waiting import eventually

CONTAINERS = 5000
WARM_UP = 2000
"""By then a worker has copied the pages of the supervisor that it writes to, has filled its caches
(1,700 readers, 512 names, 512 groups), and has used the slots of open files. What comes
after that and grows is a leak."""
IDLE = 200
MAKERS = 2
GROWTH_KB = 2 << 10
SETTLE_S = 50.0
"""A reader is remembered for 40 s at most, also one that has gone."""


@dataclass(frozen=True, slots=True)
class Use:
    """What all processes of a daemon have together."""

    processes: int
    descriptors: int
    records: int
    private_kb: int
    shared_kb: int

    def __str__(self) -> str:
        """One line."""
        return (
            f"{self.descriptors} descriptors, {self.records} records, "
            f"{self.private_kb} kB private, {self.shared_kb} kB of memfds"
        )


def use_of(served: Service) -> Use:
    """Take stock."""
    pids = list(served.processes())
    return Use(
        processes=len(pids),
        descriptors=sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids),
        records=len(os.listdir(served.records_directory)),
        private_kb=sum(private_kb(pid) for pid in pids),
        shared_kb=memfd_kb(served),
    )


def private_kb(pid: int) -> int:
    """Memory that nobody shares with a process (`Private_*` of `smaps_rollup`)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def memfd_kb(served: Service) -> int:
    """What is in the memory files of the daemon."""
    found = {}
    folder = f"/proc/{served.pid}/fd"
    for name in os.listdir(folder):
        status = os.stat(f"{folder}/{name}")
        if os.readlink(f"{folder}/{name}").startswith("/memfd:"):
            found[status.st_ino] = status.st_blocks // 2
    return sum(found.values())


def live_and_die(mount: str, count: int) -> int:
    """Make so many containers, one after the other, each with one short reader; count the bad."""
    bad = 0
    for number in range(count):
        limit_mib = 50 + number % 100
        with container(memory_bytes=limit_mib * MIB) as group:
            pid = fork()
            if pid == 0:
                group.add(0)
                os._exit(not reads_right(mount, limit_mib << 10))
            bad += os.waitpid(pid, 0)[1] != 0
    return bad


def reads_right(mount: str, total_kb: int) -> bool:
    """Read some files; tell whether they are of a container of this size."""
    try:
        agents.read(f"{mount}/proc/stat")
        agents.read(f"{mount}/proc/loadavg")
        first = agents.read(f"{mount}/proc/meminfo").split()[1]
    except OSError:
        return False
    return int(first) == total_kb


def churn(mount: str, count: int) -> int:
    """Have so many containers come and go, in parallel; return how many were read wrong."""
    with ExitStack() as stack:
        makers = [stack.enter_context(agent()) for _ in range(MAKERS)]
        for maker in makers:
            maker.send(live_and_die, mount, count // MAKERS)
        return sum(int(str(maker.receive())) for maker in makers)


def settled(served: Service) -> Use:
    """Take stock while few containers read, once nothing is left of those that have gone."""
    # Where the daemon itself is in a container, that one has a record too.
    eventually(lambda: len(os.listdir(served.records_directory)) <= 1, SETTLE_S)
    eventually(lambda: not holds_what_has_gone(served), SETTLE_S)
    with crowd(served.mountpoint) as readers:
        readers.read_some(50)
        use = use_of(served)
        readers.stop().all_right()
        return use


def holds_what_has_gone(served: Service) -> bool:
    """Whether a process of the daemon has a file open of a cgroup or process that is gone."""
    for pid in served.processes():
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                path = os.readlink(f"/proc/{pid}/fd/{name}")
            except FileNotFoundError:
                continue
            is_kernels = path.startswith(("/sys/fs/cgroup/", "/proc/"))
            if is_kernels and not os.path.exists(os.path.dirname(path)):
                return True
    return False


@pytest.mark.timeout(600)
def test_5000_containers_leave_nothing_in_the_daemon() -> None:
    count = scaled(CONTAINERS, least=200)
    # One, since a second worker begins to know containers whenever the first one is stuck.
    with service("--workers", "1") as served:
        churn_under_load(served, WARM_UP)
        before = settled(served)
        tally = churn_under_load(served, count)
        at_once = use_of(served)
        after = settled(served)
        figure(f"{count} containers beside readers: {tally}")
        figure(f"{count} containers: before: {before}; at once: {at_once}; after: {after}")
        assert after.processes == before.processes
        assert after.descriptors <= before.descriptors
        assert after.records <= before.records
        grown_kb = after.private_kb + after.shared_kb - before.private_kb - before.shared_kb
        assert grown_kb <= GROWTH_KB


def test_workers_that_nobody_asks_any_more_let_go_of_what_has_gone() -> None:
    """Files of cgroups and of readers: not only when the next request comes."""
    with service("--workers", "2") as served:
        assert churn(str(served.mountpoint), IDLE) == 0
        at_once = use_of(served).descriptors
        assert holds_what_has_gone(served)
        eventually(lambda: not holds_what_has_gone(served), SETTLE_S)
        idle = use_of(served).descriptors
        figure(f"{IDLE} containers: {at_once} descriptors at once, {idle} when idle")


def churn_under_load(served: Service, count: int) -> Tally:
    """Have containers come and go beside readers that stay."""
    with crowd(served.mountpoint) as readers:
        assert churn(str(served.mountpoint), count) == 0
        tally = readers.stop()
        tally.all_right()
        assert tally.host_steps_back == 0, "a counter of the host stepped back"
        return tally
