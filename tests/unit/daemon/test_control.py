"""The control socket and the lock: one supervisor, and answers to who asks it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from procscope.daemon import control, sockets
from procscope.daemon.control import AlreadyServedError, ControlSocket, acquire_lock, ask
from procscope.errors import ProcscopeError

TRY_LOCK = "import sys; from procscope.daemon.control import *; acquire_lock(sys.argv[1], '/m')"


@pytest.fixture
def state(tmp_path: Path) -> str:
    return str(tmp_path)


@pytest.fixture
def server(state: str) -> Iterator[ControlSocket]:
    """SIGIO would end the test's process where the supervisor waits for it."""
    before = signal.signal(control.SIGNAL, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, (control.SIGNAL,))
    one = ControlSocket(state)
    yield one
    one.close()
    while signal.sigtimedwait((control.SIGNAL,), 0) is not None:
        pass
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (control.SIGNAL,))
    signal.signal(control.SIGNAL, before)


def asking(state: str, operation: str) -> tuple[threading.Thread, list[object]]:
    answers: list[object] = []

    def run() -> None:
        try:
            answers.append(ask(state, operation, 2.0))
        except ProcscopeError as error:
            answers.append(str(error))

    # A signal for the process may be delivered to any thread that has not blocked it.
    thread = threading.Thread(target=run)
    thread.start()
    return thread, answers


def test_a_signal_says_that_somebody_asks(state: str, server: ControlSocket) -> None:
    thread, answers = asking(state, "status")
    assert signal.sigtimedwait((control.SIGNAL,), 2.0) is not None
    order = server.next_order()
    assert order is not None
    assert order.operation == "status"
    order.reply(version="9")
    thread.join()
    assert answers == [{"ok": True, "version": "9"}]
    assert server.next_order() is None


def test_a_refusal_reaches_who_asked(state: str, server: ControlSocket) -> None:
    thread, answers = asking(state, "explode")
    signal.sigtimedwait((control.SIGNAL,), 2.0)
    order = server.next_order()
    assert order is not None
    order.refuse("not today")
    thread.join()
    assert answers == ["not today: see the daemon's log"]


def test_what_is_no_request_is_dropped(state: str, server: ControlSocket) -> None:
    with contextlib.closing(sockets.connect(state, control.SOCKET_NAME, 1.0)) as garbage:
        garbage.send(b"\xff\x00[")
        assert server.next_order() is None
        assert garbage.recv(10) == b""


def test_only_root_or_the_same_user_may_connect(state: str, server: ControlSocket) -> None:
    assert os.stat(f"{state}/{control.SOCKET_NAME}").st_mode & 0o777 == 0o600


def test_without_a_supervisor_there_is_no_answer(state: str) -> None:
    assert ask(state, "status", 1.0) is None
    ControlSocket(state).close()
    assert ask(state, "status", 1.0) is None, "a socket that nobody listens at"


def locks_elsewhere(state: str) -> bool:
    """Whether another process gets the lock."""
    ended = subprocess.run(
        [sys.executable, "-c", TRY_LOCK, state], capture_output=True, check=False
    )
    return ended.returncode == 0


def test_one_process_at_a_time_has_the_lock(state: str) -> None:
    fd = acquire_lock(state, "/m")
    assert not locks_elsewhere(state)
    os.close(fd)
    assert locks_elsewhere(state)


def test_a_child_does_not_keep_the_lock(state: str) -> None:
    """Workers outlive a supervisor that crashes, and must not hinder the next one."""
    holder = subprocess.run(
        [
            sys.executable,
            "-c",
            TRY_LOCK + "\nimport os, time\nif not os.fork(): time.sleep(2)",
            state,
        ],
        check=False,
    )
    assert holder.returncode == 0
    os.close(acquire_lock(state, "/m"))


def test_the_lock_outlives_an_exec(state: str) -> None:
    """With the descriptor that is handed on, there is no moment in which another could take it."""
    script = f"""
import os, sys
{TRY_LOCK.partition("; ")[2].rpartition("; ")[0]}
fd = acquire_lock(sys.argv[1], "/m")
os.set_inheritable(fd, True)
os.execv(sys.executable, [sys.executable, "-c",
    "import sys; print(flush=True); sys.stdin.read()", str(fd)])
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, state], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        holder.stdout.readline()
        with pytest.raises(AlreadyServedError):
            acquire_lock(state, "/m")
        holder.stdin.close()
    os.close(acquire_lock(state, "/m"))


def test_an_inherited_lock_is_used(state: str) -> None:
    fd = os.open(f"{state}/{control.LOCK_NAME}", os.O_RDWR | os.O_CREAT)
    assert acquire_lock(state, "/m", fd) == fd
    assert not locks_elsewhere(state)
    fcntl.lockf(fd, fcntl.LOCK_UN)
    os.close(fd)


def test_who_has_the_lock(state: str) -> None:
    assert control.lock_holder(state) is None
    hold = TRY_LOCK + "; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, state], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert control.lock_holder(state) == holder.pid
        holder.communicate()
    assert control.lock_holder(state) is None
