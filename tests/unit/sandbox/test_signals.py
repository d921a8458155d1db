"""Exit codes, and which signals are passed on."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.sandbox import signals


@given(st.integers(0, 255))
def test_an_exit_code_is_passed_through(code: int) -> None:
    assert signals.exit_code(code << 8) == code


@pytest.mark.parametrize("number", [1, 2, 9, 15, 64])
@pytest.mark.parametrize("core", [0, 0x80])
def test_a_signal_is_128_and_its_number(number: int, core: int) -> None:
    assert signals.exit_code(number | core) == 128 + number


def _run_in_child(body: str) -> int:
    """Run one of the functions below in a fork, whose signals may be changed; return its code."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = int(globals()[body]())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _forward_one() -> bool:
    """A SIGTERM from a process reaches the child, which ends of it."""
    state = signals.block()
    child = os.fork()
    if child == 0:
        signals.restore(state)
        while True:
            signal.pause()
    os.kill(os.getpid(), signal.SIGTERM)

    def reap() -> int | None:
        pid, status = os.waitpid(child, os.WNOHANG)
        return status if pid else None

    return signals.exit_code(signals.forward_until(state, child, reap)) == 128 + signal.SIGTERM


def _ignored_stays_ignored() -> bool:
    """Under nohup nobody waits for SIGHUP, and the command does not get it back."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    state = signals.block()
    signals.restore_for_command(state)
    return signal.SIGHUP not in state.waited and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def _command_gets_defaults() -> bool:
    """What Python ignores for itself is not ignored by the command, and nothing is blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    signals.restore_for_command(signals.block())
    after = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    return before == after and signal.getsignal(signal.SIGPIPE) is signal.SIG_DFL


def _children_are_not_reaped_by_the_kernel() -> bool:
    """SIGCHLD inherited as ignored would lose every status."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signals.block()
    child = os.fork()
    if child == 0:
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.parametrize(
    "body",
    [
        _forward_one,
        _ignored_stays_ignored,
        _command_gets_defaults,
        _children_are_not_reaped_by_the_kernel,
    ],
    ids=lambda body: body.__name__,
)
def test_in_a_process_of_its_own(body: object) -> None:
    assert _run_in_child(getattr(body, "__name__", "")) == 1
