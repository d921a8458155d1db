"""Proves: readiness compares what matters, and never waits for longer than its patience."""

from __future__ import annotations

import threading

import pytest

from procscope.daemon.config import CPU_FOLDER, DEFAULT_FILES, ServeConfig
from procscope.daemon.report.probe import Prober, check_mount, facts

FILES = {
    "proc/meminfo": b"MemTotal:      102400 kB\nMemFree:       1 kB\n",
    "proc/cpuinfo": b"processor\t: 0\nmodel name\t: x\n\nprocessor\t: 2\n",
    f"{CPU_FOLDER}/online": b"0,2\n",
}


def test_what_is_compared() -> None:
    assert facts(FILES.__getitem__, DEFAULT_FILES) == {
        "MemTotal of proc/meminfo": (b"102400",),
        "processors of proc/cpuinfo": (b"0", b"2"),
        "sys/devices/system/cpu/online": b"0,2\n",
    }


def test_only_what_is_served() -> None:
    assert list(facts(FILES.__getitem__, ("proc/meminfo", "proc/stat"))) == [
        "MemTotal of proc/meminfo"
    ]


def test_a_file_that_is_missing_is_named() -> None:
    assert check_mount(ServeConfig(mountpoint="/nowhere")) == (
        "/nowhere/proc/meminfo: No such file or directory"
    )


def test_an_answer_is_kept_for_a_moment() -> None:
    asked: list[int] = []

    def check() -> str:
        asked.append(1)
        return "wrong"

    one = Prober(check, good_for_s=60)
    assert [one.problem() for _ in range(3)] == ["wrong"] * 3
    assert len(asked) == 1


def test_a_check_that_hangs_is_not_waited_for_and_not_started_twice() -> None:
    go_on = threading.Event()
    asked: list[int] = []

    def check() -> str:
        asked.append(1)
        go_on.wait()
        return ""

    one = Prober(check, patience_s=0.01, good_for_s=60)
    assert [one.problem() for _ in range(3)] == ["no answer within 0.01 s"] * 3
    go_on.set()
    patient = Prober(check, patience_s=2)
    assert patient.problem() == ""
    assert len(asked) == 2


@pytest.mark.parametrize("error", [ValueError("what"), KeyError("what")])
def test_an_error_is_no_answer_that_all_is_right(error: Exception) -> None:
    def check() -> str:
        raise error

    assert "what" in Prober(check).problem()
