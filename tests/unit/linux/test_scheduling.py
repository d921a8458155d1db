"""Proves on which CPU a task is found, and that whoever makes way comes back unchanged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.ids import CpuId, Pid
from procscope.linux import scheduling, syscalls
from procscope.linux.scheduling import Placement, cpu_of, may_leave_idle_class
from tests.unit.linux.forked import child_that, outcome_of

CPUS = sorted(os.sched_getaffinity(0))
FIRST, LAST = CpuId(CPUS[0]), CpuId(CPUS[-1])
MISSING = CpuId(CPUS[-1] + 1)
Place = tuple[int, list[int]]
"""A process's scheduling policy, and its CPUs."""


def place() -> Place:
    return os.sched_getscheduler(0), sorted(os.sched_getaffinity(0))


USUAL = place()


@pytest.fixture
def policy_afterwards(monkeypatch: pytest.MonkeyPatch) -> int:
    """What is left of SCHED_IDLE: nothing, or all where a process may not go back."""
    if may_leave_idle_class():
        return os.SCHED_OTHER
    monkeypatch.setattr(scheduling, "let_run", lambda pid: None)
    return os.SCHED_IDLE


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("name", ["sleeper", ") R 1 2 3", "a b) (c) S"])
def test_a_task_is_found_on_its_cpu(cpu: int, name: str) -> None:
    """Whatever it is called."""

    def prepare() -> None:
        syscalls.set_name(name)
        os.sched_setaffinity(0, {cpu})

    with child_that(prepare) as pid:
        assert Path(f"/proc/{pid}/comm").read_text() == f"{name}\n"
        assert cpu_of(Pid(pid)) == cpu


def test_a_task_that_has_ended_is_on_none() -> None:
    with child_that(lambda: None) as pid:
        pass
    assert cpu_of(Pid(pid)) is None
    assert cpu_of(Pid(0)) is None


@given(text=st.binary(max_size=300) | st.just(b"7 (x) S" + b" 1" * 34))
def test_a_task_that_cannot_be_understood_is_on_none(
    tmp_path_factory: pytest.TempPathFactory, text: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp() / "garbage/7/task/7"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stat").write_bytes(text)
    assert cpu_of(Pid(7), str(tmp_path_factory.getbasetemp() / "garbage")) is None


@pytest.mark.parametrize(
    ("status", "may"),
    [
        ("Name:\tx\nCapPrm:\t0000000000800000\nCapEff:\t0000000000000000\n", False),
        ("CapEff:\t0000000000800000\n", True),
        ("CapEff:\t000001ffffffffff\nCapBnd:\t0000000000000000\n", True),
        ("CapEff:\t000001ffff7fffff\nCapBnd:\t000001ffffffffff\n", False),
        ("CapEff:\tmany\n", False),
        ("Name:\tx\n", False),
        (None, False),
    ],
)
@pytest.mark.parametrize(
    ("uid_map", "is_first"),
    [
        ("         0          0 4294967295\n", True),
        ("         0     100000      65536\n", False),
        ("         0       1000          1\n         1     100000      65536\n", False),
        (None, False),
    ],
)
def test_who_has_the_capability_in_the_first_user_namespace_may_leave_the_idle_class(
    tmp_path: Path, status: str | None, may: bool, uid_map: str | None, is_first: bool
) -> None:
    (tmp_path / "self").mkdir()
    for name, text in (("status", status), ("uid_map", uid_map)):
        if text is not None:
            (tmp_path / "self" / name).write_text(text)
    assert may_leave_idle_class(str(tmp_path)) == (may and is_first)


@pytest.mark.parametrize("cpus", [CPUS, [FIRST]])
def test_who_has_made_way_comes_back_to_where_he_was(
    policy_afterwards: int, cpus: list[int]
) -> None:
    """Also to what had been narrowed before, and however often he was moved."""

    def move() -> tuple[list[bool], list[Place]]:
        os.sched_setaffinity(0, cpus)
        placement = Placement()
        done, places = [], []
        for cpu in (cpus[0], cpus[-1]):
            done.append(placement.make_way_on(CpuId(cpu)))
            places.append(place())
        placement.restore()
        return done, [*places, place()]

    done, places = outcome_of(move)
    assert done == [True, True]
    away = [(os.SCHED_IDLE, [cpus[0]]), (os.SCHED_IDLE, [cpus[-1]])]
    assert places == [*away, (policy_afterwards, cpus)]


def test_where_he_may_not_run_he_makes_no_way() -> None:
    """Nor does he leave the place where he makes way already."""

    def move() -> list[tuple[bool, Place]]:
        placement = Placement()
        return [(placement.make_way_on(cpu), place()) for cpu in (MISSING, FIRST, MISSING)]

    there = (os.SCHED_IDLE, [FIRST])
    assert outcome_of(move) == [(False, USUAL), (True, there), (False, there)]


def refuse(*_: object) -> None:
    raise PermissionError


@pytest.mark.parametrize("call", ["sched_setscheduler", "sched_setaffinity"])
def test_where_the_kernel_refuses_nothing_is_changed(
    monkeypatch: pytest.MonkeyPatch, policy_afterwards: int, call: str
) -> None:
    monkeypatch.setattr(os, call, refuse)

    def move() -> tuple[bool, Place]:
        return Placement().make_way_on(FIRST), place()

    policy = os.SCHED_OTHER if call == "sched_setscheduler" else policy_afterwards
    assert outcome_of(move) == (False, (policy, CPUS))


@pytest.mark.parametrize("cpus", [CPUS, [FIRST]])
def test_who_keeps_off_a_cpu_runs_on_all_others_and_comes_back(cpus: list[int]) -> None:
    """Where there is no other he stays."""

    def move() -> list[Place]:
        os.sched_setaffinity(0, cpus)
        placement = Placement()
        places = []
        for cpu in (cpus[0], cpus[-1], MISSING):
            placement.keep_off(CpuId(cpu))
            places.append(place())
        placement.restore()
        return [*places, place()]

    expected = [cpus[1:] or cpus, cpus[:-1] or cpus, cpus, cpus]
    assert outcome_of(move) == [(os.SCHED_OTHER, left) for left in expected]


def test_who_has_changed_nothing_has_nothing_to_give_back() -> None:
    """A mask that somebody else has set meanwhile stays."""

    def move() -> Place:
        placement = Placement()
        os.sched_setaffinity(0, {LAST})
        placement.restore()
        return place()

    assert outcome_of(move) == (os.SCHED_OTHER, [LAST])


def test_who_was_given_a_class_of_his_own_stays_in_it() -> None:
    def move() -> tuple[bool, Place]:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        return Placement().make_way_on(CpuId(FIRST)), place()

    assert outcome_of(move) == (False, (os.SCHED_BATCH, CPUS))
