"""Proves: what a child says counts, whatever becomes of it, and none keeps the caller waiting."""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Callable, Sequence

import pytest

from procscope.errors import ProcscopeError
from procscope.inject.forked import Tell, Told, run_forked

Job = Callable[[Tell], None]

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
LONG_S = 60.0


def told(*jobs: Job, timeout_s: float = LONG_S, at_once: int = 2) -> Sequence[Told]:
    done = dict(run_forked(jobs, timeout_s=timeout_s, at_once=at_once))
    assert sorted(done) == list(range(len(jobs)))
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    return [done[index] for index in sorted(done)]


def hangs(tell: Tell) -> None:
    tell({"first": 1})
    signal.pause()


def test_every_record_arrives_whole_and_in_order() -> None:
    def talks(tell: Tell) -> None:
        for number in range(3000):
            tell({"number": number, "text": "x\n\udc80" * 40})

    (one,) = told(talks)
    assert [record["number"] for record in one.records] == list(range(3000))
    assert {record["text"] for record in one.records} == {"x\n\udc80" * 40}


def test_each_job_has_a_process_of_its_own_and_its_own_answer() -> None:
    def job(number: int) -> Job:
        return lambda tell: tell({"number": number, "pid": os.getpid()})

    answers = told(*map(job, range(20)), at_once=4)
    assert [one.records[0]["number"] for one in answers] == list(range(20))
    assert len({one.records[0]["pid"] for one in answers} | {os.getpid()}) == 21


def test_one_that_hangs_is_killed_and_what_it_said_is_kept() -> None:
    one, other = told(hangs, lambda tell: tell({"second": 2}), timeout_s=0.2)
    assert (one.records, one.timed_out) == ([{"first": 1}], True)
    assert (other.records, other.timed_out) == ([{"second": 2}], False)


def test_one_that_hangs_does_not_hold_the_others_up() -> None:
    reader, writer = os.pipe()

    def waits_for_the_last(tell: Tell) -> None:
        os.read(reader, 1)
        tell({"woken": True})

    def last(tell: Tell) -> None:
        os.write(writer, b"!")
        tell({"last": True})

    try:
        answers = told(waits_for_the_last, last, at_once=2)
    finally:
        os.close(reader)
        os.close(writer)
    assert not any(one.timed_out for one in answers)


def test_errors_are_told() -> None:
    def of_the_user(_: Tell) -> None:
        raise ProcscopeError("what", hint="how")

    def of_the_system(_: Tell) -> None:
        raise OSError(errno.ENOENT, "No such file or directory", "/x")

    def dies(_: Tell) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    user, system, dead = told(of_the_user, of_the_system, dies)
    assert user.records == [{"error": "what", "hint": "how"}]
    assert system.records == [{"error": "/x: No such file or directory", "hint": ""}]
    assert (dead.records, dead.timed_out) == ([], False)


def test_a_fault_of_ours_is_told_and_traced(capfd: pytest.CaptureFixture[str]) -> None:
    def wrong(_: Tell) -> None:
        raise ZeroDivisionError

    (one,) = told(wrong)
    assert "error of procscope itself" in str(one.records[0]["error"])
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_children_die_with_a_caller_that_loses_interest() -> None:
    reader, writer = os.pipe()
    run = run_forked([lambda tell: tell({}), hangs], timeout_s=LONG_S, at_once=2)
    next(run)
    run.close()  # type: ignore[attr-defined]
    os.close(writer)
    # The child that hangs holds the other end of this pipe as well.
    assert select.select([reader], [], [], 2.5)[0] == [reader]
    os.close(reader)
    deadline = time.monotonic() + 2.5
    while time.monotonic() < deadline:
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
    pytest.fail("a child was not reaped")
