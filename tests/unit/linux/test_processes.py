"""A process is told apart from a later one with its pid."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from procscope.linux.processes import (
    ProcessIdentity,
    has_ended,
    identity_of,
    open_process,
    terminate,
)

IGNORES_SIGTERM = "import signal; signal.signal(15, 1); print(flush=True); signal.pause()"


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as one:
        yield one
        one.kill()


def known(pid: int) -> ProcessIdentity:
    identity = identity_of(pid)
    assert identity is not None
    return identity


def test_the_same_process_has_the_same_identity(process: subprocess.Popen[bytes]) -> None:
    assert known(process.pid) == known(process.pid)
    assert known(process.pid) != known(os.getpid())


def test_a_process_that_ended_has_none(process: subprocess.Popen[bytes]) -> None:
    identity = known(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert identity_of(process.pid) is None, "a zombie"
    process.wait()
    assert identity_of(process.pid) is None
    assert open_process(identity) is None


def test_another_process_with_the_pid_is_not_opened(process: subprocess.Popen[bytes]) -> None:
    identity = known(process.pid)
    earlier = ProcessIdentity(identity.pid, identity.start_ticks - 1)
    assert open_process(earlier) is None
    assert not terminate(earlier, 0.1)
    assert process.poll() is None


def test_an_opened_process_tells_its_end(process: subprocess.Popen[bytes]) -> None:
    pidfd = open_process(known(process.pid))
    assert pidfd is not None
    assert not has_ended(pidfd)
    process.kill()
    assert has_ended(pidfd, 2.0)
    os.close(pidfd)


def test_a_process_is_asked_to_end(process: subprocess.Popen[bytes]) -> None:
    assert not terminate(known(process.pid), 2.0)
    assert process.wait() == -signal.SIGTERM


def test_one_that_does_not_end_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", IGNORES_SIGTERM], stdout=subprocess.PIPE) as deaf:
        assert deaf.stdout is not None
        deaf.stdout.readline()
        assert terminate(known(deaf.pid), 0.05)
        assert deaf.wait() == -signal.SIGKILL


@pytest.mark.parametrize("stat", ["", "7 (sleep", "7 (a) b) S 1"])
def test_what_is_no_stat_is_no_process(tmp_path: Path, stat: str) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7/stat").write_text(stat)
    assert identity_of(7, str(tmp_path)) is None


def test_a_pid_that_cannot_be_is_not_opened() -> None:
    assert open_process(ProcessIdentity(-1, 0)) is None
    assert open_process(ProcessIdentity(1 << 40, 0)) is None
