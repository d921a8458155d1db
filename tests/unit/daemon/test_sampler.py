"""Proves: load averages follow the tasks by the kernel's rule, and records go with their cgroup."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from procscope.daemon.sampler import Sampler
from procscope.ids import Pid
from procscope.observe import asleep
from procscope.observe.loadblock import LoadBlock
from procscope.observe.records import RecordIdentity, RecordStore
from procscope.observe.tasks import newest_pid
from procscope.views.loadavg import Load, decay_n
from tests.unit.containers.fakeproc import open_below
from tests.unit.observe.fakehost import FakeHost

INTERVAL_NS = 5_000_000_000
START_NS = 1000 * INTERVAL_NS


def after_passes(active: int, passes: int) -> Load:
    """One by one: each pass rounds, as the kernel's does."""
    load = Load()
    for _ in range(passes):
        load = decay_n(load, active, 1)
    return load


class Node:
    """A fake host with its sampler; time is what the test says."""

    def __init__(self, root: Path) -> None:
        self.host = FakeHost(root)
        self.now_ns = START_NS
        self.restart()

    def restart(self) -> None:
        self.sampler = Sampler(self.host.hierarchies, self.host.records, self.host.proc.path)

    def track(self, name: str, *states: str, first_pid: int = 10) -> str:
        """Add a container with one task for each of `states`; return its record's name."""
        container = self.host.add_container(name)
        pids = list(range(first_pid, first_pid + len(states)))
        for number, (pid, state) in enumerate(zip(pids, states, strict=True), start=1):
            self.host.proc.add(pid, nspid=(pid, number), state=state)
        self.host.set_tasks(name, *pids)
        before = set(self.host.records.names())
        observatory = self.host.observatory()
        observatory.track(container)
        observatory.close()
        (record,) = set(self.host.records.names()) - before
        return record

    def sample(self, intervals: float = 1) -> None:
        self.now_ns += int(intervals * INTERVAL_NS)
        self.sampler.sample(self.now_ns)

    def block(self, name: str) -> LoadBlock | None:
        record = self.host.records.open_existing(name)
        assert record is not None
        try:
            return LoadBlock.from_bytes(record.read_load())
        finally:
            record.close()

    def load(self, name: str) -> Load:
        block = self.block(name)
        assert block is not None
        return block.load


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    yield node
    for name in list(node.sampler._tracked):
        node.sampler._drop(name)
    assert open_below(tmp_path) == []


def test_each_pass_decays_by_one_interval(node: Node) -> None:
    name = node.track("c", "R", "R", "S")
    for passes in range(1, 20):
        node.sample()
        assert node.load(name) == after_passes(2, passes)


def test_what_a_sample_tells(node: Node) -> None:
    name = node.track("c", "R", "D", "S", "S", "Z")
    node.sample()
    block = node.block(name)
    assert block is not None
    assert (block.tasks.running, block.tasks.blocked, block.tasks.total) == (1, 1, 5)
    assert block.newest_pid == 5
    assert block.sampled_at_ns == node.now_ns
    assert block.load == decay_n(Load(), 2, 1)


def test_the_newest_process_is_looked_for_where_the_threads_are_others(node: Node) -> None:
    """Among the same ones it is the same."""
    name = node.track("c", "R", "S")
    node.sample()
    status = Path(node.host.proc.path) / "11" / "status"
    status.write_text(status.read_text().replace("NSpid:\t11\t2", "NSpid:\t11\t7"))
    assert newest_pid(node.host.proc.path, [Pid(10), Pid(11)]) == 7
    node.sample()
    block = node.block(name)
    assert block is not None
    assert block.newest_pid == 2
    node.host.proc.add(12, nspid=(12, 9), state="S")
    node.host.set_tasks("c", 10, 11, 12)
    node.sample()
    block = node.block(name)
    assert block is not None
    assert (block.tasks.total, block.newest_pid) == (3, 9)


@pytest.mark.parametrize(("late", "passes"), [(0.6, 1), (1.4, 1), (1.6, 2), (3, 3), (720, 720)])
def test_missed_passes_are_made_up_for(node: Node, late: float, passes: int) -> None:
    """A host that was suspended, or a sampler that was starved."""
    name = node.track("c", "R")
    node.sample()
    node.sample(late)
    assert node.load(name) == decay_n(decay_n(Load(), 1, 1), 1, passes)


def test_a_clock_that_stands_still_counts_as_one_pass(node: Node) -> None:
    name = node.track("c", "R")
    node.sample()
    node.sample(0)
    node.sample(-3)
    assert node.load(name) == after_passes(1, 3)


def test_containers_are_told_apart(node: Node) -> None:
    busy = node.track("busy", "R", "R", first_pid=10)
    idle = node.track("idle", "S", first_pid=20)
    node.sample()
    assert node.load(busy) == decay_n(Load(), 2, 1)
    assert node.load(idle) == Load()


def test_a_restarted_sampler_goes_on_where_the_last_one_was(node: Node) -> None:
    name = node.track("c", "R")
    for _ in range(5):
        node.sample()
    for tracked in list(node.sampler._tracked):
        node.sampler._drop(tracked)
    node.restart()
    node.sample(2)
    assert node.load(name) == decay_n(after_passes(1, 5), 1, 2)


def test_a_change_of_state_is_seen_at_the_next_pass(node: Node) -> None:
    name = node.track("c", "R")
    node.sample()
    node.host.proc.set_state(10, "S")
    node.sample()
    assert node.load(name) == decay_n(decay_n(Load(), 1, 1), 0, 1)


def use_cpu(node: Node, name: str, usec: int) -> None:
    (stat,) = node.host.root.glob(f"**/{name}/cpu.stat")
    stat.write_text(f"usage_usec {usec}\nuser_usec {usec}\nsystem_usec 0\n")


def test_tasks_that_sleep_are_not_looked_at_until_one_has_run(node: Node) -> None:
    """The fake's tasks change their state without running, which no real one can."""
    name = node.track("c", "S", "S")
    node.sample()
    node.host.proc.set_state(10, "R")
    node.sample()
    block = node.block(name)
    assert block is not None
    assert (block.tasks.running, block.tasks.total) == (0, 2)
    use_cpu(node, "c", 100)
    node.sample()
    block = node.block(name)
    assert block is not None
    assert block.tasks.running == 1


def test_tasks_that_sleep_are_counted_now_and_then(node: Node) -> None:
    """One may have been moved into the cgroup, and not have run there."""
    name = node.track("c", "S")
    node.sample()
    node.host.proc.add(11, nspid=(11, 2), state="S")
    node.host.set_tasks("c", 10, 11)
    for _ in range(20):
        node.sample()
    block = node.block(name)
    assert block is not None
    assert block.tasks.total == 2


def asleep_at_ns(node: Node, name: str) -> int | None:
    record = node.host.records.open(name)
    try:
        return asleep.from_bytes(record.read_asleep())
    finally:
        record.close()


def test_it_is_told_whether_all_sleep(node: Node) -> None:
    name = node.track("c", "S", "S")
    use_cpu(node, "c", 7)
    node.sample()
    assert asleep_at_ns(node, name) == 7000
    node.host.proc.set_state(10, "D")
    use_cpu(node, "c", 8)
    node.sample()
    assert asleep_at_ns(node, name) is None


def test_of_a_container_that_sleeps_nothing_is_written(node: Node) -> None:
    name = node.track("c", "S")
    node.sample()
    first = node.block(name)
    node.sample(4)
    assert node.block(name) == first
    use_cpu(node, "c", 100)
    node.host.proc.set_state(10, "R")
    node.sample()
    assert node.load(name) == after_passes(1, 1), "not of all the time since the last block"


def test_a_restarted_sampler_knows_that_who_slept_had_no_load(node: Node) -> None:
    """The record has the time of the last sample that told something."""
    name = node.track("c", "S")
    node.sample()
    node.sample(100)
    node.sampler._drop(name)
    node.restart()
    node.host.proc.set_state(10, "R")
    node.sample()
    assert node.load(name) == after_passes(1, 1)


def test_a_removed_cgroup_takes_its_record_along(node: Node) -> None:
    gone, other = node.track("gone", "R"), node.track("other", "R", first_pid=20)
    node.sample()
    node.host.remove_container("gone")
    node.sample()
    assert node.host.records.names() == (other,)
    assert gone not in node.sampler._tracked
    assert node.load(other) == after_passes(1, 2)


def test_a_cgroup_that_is_made_again_does_not_inherit(node: Node) -> None:
    name = node.track("c", "R")
    node.sample()
    node.host.remake_container("c", limit_bytes=1 << 20)
    node.sample()
    assert name not in node.host.records.names()


def test_a_record_of_an_earlier_cgroup_is_removed_unsampled(node: Node) -> None:
    """The daemon was not running when the cgroup was made again."""
    name = node.track("c", "R")
    node.host.remake_container("c", limit_bytes=1 << 20)
    node.sample()
    assert name not in node.host.records.names()


def test_a_record_that_vanishes_is_forgotten(node: Node) -> None:
    name = node.track("c", "R")
    node.sample()
    node.host.records.remove(name)
    node.sample()
    assert name not in node.sampler._tracked


def test_a_record_without_a_name_has_a_while_to_get_one(node: Node) -> None:
    node.host.records.open("nameless").close()
    for _ in range(3):
        node.sample()
        assert "nameless" in node.host.records.names()
    node.sample()
    assert node.host.records.names() == ()
    assert node.sampler._nameless == {}


def test_a_record_that_gets_its_name_late_is_sampled(node: Node) -> None:
    name = node.track("c", "R")
    named = node.host.records.open(name)
    identity = named.read_identity()
    assert identity is not None
    named._write(4096, b"not yet")
    node.sample()
    assert node.block(name) is None
    named.write_identity(identity)
    named.close()
    node.sample()
    assert node.load(name) == decay_n(Load(), 1, 1)
    assert node.sampler._nameless == {}


def test_a_nameless_record_that_vanishes_is_forgotten(node: Node) -> None:
    node.host.records.open("nameless").close()
    node.sample()
    node.host.records.remove("nameless")
    node.sample()
    assert node.sampler._nameless == {}


def test_a_record_of_the_host_is_none(node: Node) -> None:
    record = node.host.records.open("host")
    record.write_identity(RecordIdentity({}, 1))
    record.close()
    node.sample()
    node.sample(4)
    assert node.host.records.names() == ()


def test_one_bad_record_does_not_stop_the_others(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    names = [node.track(f"c{n}", "R", first_pid=10 * n) for n in range(1, 6)]
    (node.host.root / "state/bad").mkdir()
    node.sample()
    assert all(node.load(name) == decay_n(Load(), 1, 1) for name in names)
    assert ["bad" in record.getMessage() for record in caplog.records] == [True]


def test_a_container_without_tasks_decays_to_nothing(node: Node) -> None:
    name = node.track("c", "R")
    for _ in range(12):
        node.sample()
    assert node.load(name).one > 0
    node.host.set_tasks("c")
    node.sample(720 * 4)
    assert node.load(name) == decay_n(after_passes(1, 12), 0, 720 * 4)
    assert node.load(name).one == 0


def test_a_record_that_cannot_be_removed_does_not_stop_the_sampling(
    node: Node, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a disk that was made read-only: it is tried again at the next pass."""
    gone, other = node.track("gone", "R"), node.track("other", "R", first_pid=20)
    node.sample()
    node.host.remove_container("gone")
    with monkeypatch.context() as patched:
        patched.setattr(RecordStore, "remove", refuse_to_remove)
        for _ in range(2):
            node.sample()
    assert node.load(other) == after_passes(1, 3)
    assert [gone in record.getMessage() for record in caplog.records] == [True, True]
    assert "Read-only file system" in caplog.text
    node.sample()
    assert node.host.records.names() == (other,)


def refuse_to_remove(store: RecordStore, name: str) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), f"{store.directory}/{name}")
