"""The supervisor's wait: signals end it, and who does not answer is killed meanwhile."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from procscope.daemon import guard
from procscope.daemon.children import Child, Children
from procscope.daemon.slots import SlotMemory, WorkerSlots
from procscope.daemon.watch import DeadlineWatch
from procscope.fuse import opcodes
from procscope.ids import CpuId
from procscope.linux.scheduling import may_leave_idle_class
from tests.unit.fuse.memory import request

SIGNALS = (signal.SIGCHLD, signal.SIGUSR1, guard.SIGNAL)
LONG_S = 60.0


@pytest.fixture
def children() -> Iterator[Children]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    some = Children(SIGNALS)
    yield some
    some.stop()
    while signal.sigtimedwait(SIGNALS, 0) is not None:
        pass
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.fixture
def slots() -> Iterator[WorkerSlots]:
    memory = SlotMemory.create(1)
    yield memory.worker(0)
    memory.close()


def test_a_signal_ends_the_wait_at_once(children: Children) -> None:
    os.kill(os.getpid(), signal.SIGUSR1)
    received = children.wait_for_signal(LONG_S, LONG_S)
    assert received is not None
    assert received.si_signo == signal.SIGUSR1


def test_without_one_it_ends_in_time(children: Children) -> None:
    begun_s = time.monotonic()
    assert children.wait_for_signal(0.1, LONG_S) is None
    assert time.monotonic() - begun_s >= 0.1


def test_a_worker_that_begins_to_follow_does_not_end_it(children: Children) -> None:
    begun_s = time.monotonic()
    os.kill(os.getpid(), guard.SIGNAL)
    assert children.wait_for_signal(0.1, LONG_S) is None
    assert time.monotonic() - begun_s >= 0.1


def test_who_follows_and_does_not_come_to_run_is_let_run_meanwhile(
    children: Children, slots: WorkerSlots
) -> None:
    """And whoever has looked runs where he did before. SCHED_BATCH is left by everybody."""
    behind = os.SCHED_IDLE if may_leave_idle_class() else os.SCHED_BATCH
    cpus = os.sched_getaffinity(0)

    def follow() -> None:
        os.sched_setscheduler(0, behind, os.sched_param(0))
        slots.set_following(CpuId(min(cpus)))
        os.kill(os.getppid(), guard.SIGNAL)
        while os.sched_getscheduler(0) != os.SCHED_OTHER:
            time.sleep(0.001)

    children.start(Child("worker 0", follow, DeadlineWatch(slots, LONG_S), once=True))
    received = children.wait_for_signal(LONG_S, LONG_S)
    assert received is not None
    assert (received.si_signo, received.si_status) == (signal.SIGCHLD, 0)
    assert os.sched_getaffinity(0) == cpus


def test_who_does_not_answer_is_killed_though_no_signal_comes(
    children: Children, slots: WorkerSlots
) -> None:
    deadline_s = 0.5
    content = request(opcodes.FUSE_STATFS)

    def hang() -> None:
        slots.prepare(0)
        slots.buffers[0][: len(content)] = content
        slots.begin(0)
        time.sleep(LONG_S)

    children.start(Child("worker 0", hang, DeadlineWatch(slots, deadline_s)))
    received = children.wait_for_signal(LONG_S, deadline_s)
    assert received is not None
    assert received.si_signo == signal.SIGCHLD
    assert received.si_status == signal.SIGKILL
    assert children.replace_dead()
