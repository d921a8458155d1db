"""Proves: birth, states and newest pid are those of the container's own tasks, whatever they do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from procscope.ids import Pid
from procscope.observe.tasks import (
    count_states,
    find_birth_ticks,
    newest_pid,
    read_nspid,
    read_task_stat,
)
from tests.unit.containers.fakeproc import FakeProc


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path / "proc")


def birth(proc: FakeProc, *pids: int) -> int | None:
    return find_birth_ticks(proc.path, [Pid(pid) for pid in pids])


def test_the_init_of_the_namespace_is_the_first(proc: FakeProc) -> None:
    proc.add(10, nspid=(10, 1), start_ticks=500)
    proc.add(11, nspid=(11, 2), start_ticks=600)
    assert birth(proc, 11, 10) == 500


def test_the_init_counts_although_another_is_older(proc: FakeProc) -> None:
    """A process that was brought in may have been started before the container."""
    proc.add(9, nspid=(9, 30), start_ticks=100)
    proc.add(10, nspid=(10, 1), start_ticks=500)
    assert birth(proc, 9, 10) == 500


def test_an_init_of_a_deeper_namespace_is_not_the_containers(proc: FakeProc) -> None:
    proc.add(10, nspid=(10, 7), start_ticks=300)
    proc.add(11, nspid=(11, 8, 1), start_ticks=900)
    assert birth(proc, 10, 11) == 300


def test_without_an_init_the_oldest_is_the_first(proc: FakeProc) -> None:
    """A container in the host's PID namespace, or in that of its pod."""
    for pid, start_ticks in ((20, 700), (21, 650), (22, 800)):
        proc.add(pid, start_ticks=start_ticks)
    assert birth(proc, 20, 21, 22) == 650


def test_without_processes_there_is_no_birth(proc: FakeProc) -> None:
    assert birth(proc) is None
    assert birth(proc, 404) is None


def test_processes_that_ended_are_passed_over(proc: FakeProc) -> None:
    proc.add(10, nspid=(10, 1), start_ticks=500)
    proc.add(11, nspid=(11, 2), start_ticks=100)
    (proc.root / "11" / "status").unlink()
    assert birth(proc, 404, 11, 10) == 500


@pytest.mark.parametrize("comm", [") R 1 (", "a b", "))", "(", "\r) R", "x) D 1 2 3", ""])
def test_a_name_cannot_pretend_to_be_a_state(proc: FakeProc, comm: str) -> None:
    proc.add(10, comm=comm, state="S", start_ticks=77)
    stat = read_task_stat(proc.path, Pid(10))
    assert stat is not None
    assert (stat.state, stat.start_ticks) == ("S", 77)


def test_a_name_cannot_pretend_to_be_a_pid(proc: FakeProc) -> None:
    proc.add(10, nspid=(10, 3), comm="\rNSpid:\t10 1")
    assert read_nspid(proc.path, Pid(10)) == (10, 3)


def test_counts_by_state(proc: FakeProc) -> None:
    states = "RRSDIZTtRD"
    pids = [proc.add(pid, state=state) for pid, state in enumerate(states, start=1)]
    counts = count_states(proc.path, [*pids, Pid(404)])
    assert (counts.running, counts.blocked, counts.total) == (3, 2, len(states))


def test_the_newest_pid_is_the_containers_own_number(proc: FakeProc) -> None:
    pids = [proc.add(100 + number, nspid=(100 + number, number)) for number in (1, 9, 4)]
    assert newest_pid(proc.path, pids) == 9
    assert newest_pid(proc.path, [*pids, Pid(999)]) == 9
    assert newest_pid(proc.path, []) == 0


def test_this_process_on_the_real_proc() -> None:
    pid = Pid(os.getpid())
    stat = read_task_stat("/proc", pid)
    assert stat is not None
    assert stat.start_ticks > 0
    assert read_nspid("/proc", pid)[-1:]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stat=st.binary(max_size=200), status=st.binary(max_size=200))
def test_garbage_is_a_task_that_is_gone(tmp_path: Path, stat: bytes, status: bytes) -> None:
    task = tmp_path / "1" / "task" / "1"
    task.mkdir(parents=True, exist_ok=True)
    (task / "stat").write_bytes(stat)
    (tmp_path / "1" / "status").write_bytes(status)
    read_task_stat(str(tmp_path), Pid(1))
    assert newest_pid(str(tmp_path), [Pid(1)]) >= 0
    assert count_states(str(tmp_path), [Pid(1)]).total in (0, 1)
    assert find_birth_ticks(str(tmp_path), [Pid(1)]) is None or b"NSpid" in status
