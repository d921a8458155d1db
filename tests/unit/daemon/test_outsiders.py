"""Proves: each walk from no container is counted, and each program that does it is named once."""

from __future__ import annotations

from pathlib import Path

import pytest

from procscope.daemon.outsiders import Outsiders
from procscope.ids import Pid


def program(proc: Path, pid: int, comm: bytes) -> Pid:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "comm").write_bytes(comm + b"\n")
    return Pid(pid)


def test_every_walk_counts_and_every_program_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counted: list[int] = []
    outsiders = Outsiders(str(tmp_path), lambda: counted.append(1))
    runtime, again = program(tmp_path, 1, b"youki"), program(tmp_path, 2, b"youki")
    hostile = program(tmp_path, 3, b"\x1b[2J\xff\n'")
    for pid in (runtime, again, runtime, hostile, Pid(0), Pid(4), runtime):
        outsiders.note(pid)
    assert len(counted) == 7
    told = [record.getMessage() for record in caplog.records]
    assert [text.partition(",")[0] for text in told] == [
        "'youki'",
        '"\\x1b[2J\\ufffd\\n\'"',
        "a process that is not seen here",
    ]
    assert {record.levelname for record in caplog.records} == {"WARNING"}


def test_programs_of_ever_new_names_do_not_fill_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counted: list[int] = []
    outsiders = Outsiders(str(tmp_path), lambda: counted.append(1))
    for pid in range(100):
        outsiders.note(program(tmp_path, pid, b"program-%d" % pid))
    assert len(counted) == 100
    assert len(caplog.records) == 16


def test_engines_look_before_a_runtime_mounts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counted: list[int] = []
    outsiders = Outsiders(str(tmp_path), lambda: counted.append(1))
    for pid, name in enumerate((b"dockerd", b"kubelet", b"containerd"), 1):
        outsiders.note(program(tmp_path, pid, name))
    assert len(counted) == 3
    assert caplog.records == []
