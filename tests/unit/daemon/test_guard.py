"""Proves that a worker which makes way is let run where it does not come to run."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator

import pytest

from procscope.daemon import guard
from procscope.daemon.guard import Guard, GuardedPlacement
from procscope.daemon.slots import SlotMemory, WorkerSlots
from procscope.daemon.watch import LOOK_EVERY_S
from procscope.ids import CpuId, Pid
from procscope.linux import scheduling
from procscope.linux.scheduling import may_leave_idle_class
from tests.integration.agents import fork
from tests.unit.linux.forked import child_that, outcome_of

CPUS = sorted(os.sched_getaffinity(0))
FIRST, LAST = CpuId(CPUS[0]), CpuId(CPUS[-1])
MISSING = CpuId(CPUS[-1] + 1)
BEHIND = os.SCHED_IDLE if may_leave_idle_class() else os.SCHED_BATCH
"""Another class than that of others: whoever may not leave SCHED_IDLE may leave this one."""


@pytest.fixture
def slots() -> Iterator[WorkerSlots]:
    memory = SlotMemory.create(1)
    yield memory.worker(0)
    memory.close()


@pytest.fixture
def worker() -> Iterator[Pid]:
    """A process that runs behind others."""
    with child_that(lambda: os.sched_setscheduler(0, BEHIND, os.sched_param(0))) as pid:
        yield Pid(pid)


@pytest.fixture
def watcher() -> Iterator[Guard]:
    one = Guard()
    yield one
    one.stand_down()


def is_let_run(worker: Pid) -> bool:
    return os.sched_getscheduler(worker) == os.SCHED_OTHER


def test_who_begins_nothing_between_two_looks_is_let_run(
    watcher: Guard, worker: Pid, slots: WorkerSlots
) -> None:
    slots.begin(0)
    slots.set_following(MISSING)
    watcher.look([(worker, slots)])
    assert not is_let_run(worker)
    watcher.look([(worker, slots)])
    assert is_let_run(worker)


def test_who_begins_requests_is_left_alone(watcher: Guard, worker: Pid, slots: WorkerSlots) -> None:
    slots.set_following(MISSING)
    for _ in range(3):
        slots.begin(0)
        watcher.look([(worker, slots)])
    assert not is_let_run(worker)


def test_who_does_not_follow_is_left_alone(watcher: Guard, worker: Pid, slots: WorkerSlots) -> None:
    """Also where it did at the look before and does at the next one."""
    for cpu in (MISSING, None, MISSING, None, None):
        slots.set_following(cpu)
        watcher.look([(worker, slots)])
    assert not is_let_run(worker)


def test_it_looks_while_anybody_follows(watcher: Guard, worker: Pid, slots: WorkerSlots) -> None:
    assert watcher.next_look_s([(worker, slots)]) == math.inf
    slots.set_following(FIRST)
    assert watcher.next_look_s([(worker, slots)]) == guard.LOOK_EVERY_S < LOOK_EVERY_S


def test_when_nobody_follows_any_more_it_runs_where_it_could_before(slots: WorkerSlots) -> None:
    def look() -> list[list[int]]:
        watcher = Guard()
        places = []
        for cpu in (FIRST, None):
            slots.set_following(cpu)
            watcher.look([(Pid(os.getpid()), slots)])
            places.append(sorted(os.sched_getaffinity(0)))
        return places

    assert outcome_of(look) == [CPUS[1:] or CPUS, CPUS]


def test_between_two_waits_looks_do_not_count(
    watcher: Guard, worker: Pid, slots: WorkerSlots
) -> None:
    slots.set_following(MISSING)
    for _ in range(2):
        watcher.look([(worker, slots)])
        watcher.stand_down()
    assert not is_let_run(worker)


def test_a_worker_that_has_ended_is_no_error(watcher: Guard, slots: WorkerSlots) -> None:
    with child_that(lambda: None) as pid:
        pass
    slots.set_following(MISSING)
    for _ in range(2):
        watcher.look([(Pid(pid), slots)])


def test_who_looks_keeps_off_where_a_worker_follows_until_he_stands_down(
    slots: WorkerSlots,
) -> None:
    """If he can run anywhere else."""
    slots.set_following(FIRST)

    def look() -> list[list[int]]:
        watcher = Guard()
        watcher.look([(Pid(os.getpid()), slots)])
        away = sorted(os.sched_getaffinity(0))
        watcher.stand_down()
        return [away, sorted(os.sched_getaffinity(0))]

    assert outcome_of(look) == [CPUS[1:] or CPUS, CPUS]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What is sent instead of signals; and where there is no way back, none is tried."""
    signals: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *signal: signals.append(signal))
    if not may_leave_idle_class():
        monkeypatch.setattr(scheduling, "let_run", lambda pid: None)
    return signals


def test_its_supervisor_is_told_when_a_worker_begins_to_follow_and_not_of_its_moves(
    slots: WorkerSlots, sent: list[tuple[int, int]]
) -> None:
    def follow() -> list[tuple[CpuId | None, int]]:
        placement = GuardedPlacement(slots, os.getppid())
        seen = []
        for cpu in (FIRST, LAST, MISSING, None, LAST):
            if cpu is None:
                placement.restore()
            else:
                assert placement.make_way_on(cpu) == (cpu != MISSING)
            seen.append((slots.following(), len(sent)))
        assert set(sent) == {(os.getppid(), guard.SIGNAL)}
        return seen

    assert outcome_of(follow) == [(FIRST, 1), (LAST, 1), (LAST, 1), (None, 1), (LAST, 2)]


def test_without_the_supervisor_that_has_started_it_a_worker_follows_nobody(
    slots: WorkerSlots, sent: list[tuple[int, int]]
) -> None:
    reader, writer = os.pipe()
    supervisor = fork()
    if supervisor == 0:
        start_worker_and_end(slots, writer, sent)
    os.close(writer)
    os.waitpid(supervisor, 0)
    with open(reader) as file:
        assert file.read() == f"False None {os.SCHED_OTHER} []"


def start_worker_and_end(slots: WorkerSlots, writer: int, sent: list[tuple[int, int]]) -> None:
    """As a supervisor does that is killed; its worker writes how it fares without it."""
    supervisor = os.getpid()
    is_ready, ready = os.pipe()
    if fork() == 0:
        placement = GuardedPlacement(slots, supervisor)
        os.write(ready, b"\0")
        while os.getppid() == supervisor:
            time.sleep(0.001)
        follows = placement.make_way_on(FIRST)
        outcome = f"{follows} {slots.following()} {os.sched_getscheduler(0)} {sent}"
        os.write(writer, outcome.encode())
        os._exit(0)
    os.read(is_ready, 1)
    os._exit(0)
