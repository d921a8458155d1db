"""Which signals go on to the command, and how launcher and init wait for them.

They may be in the command's process group, so that the terminal's Ctrl-C reaches all three at
once; sent on as well, it would arrive twice. The kernel tells the two cases apart: what the
terminal or another part of the kernel sends has a positive `si_code`, what a process sends has
none (sigaction(2)). So both pass on what a process has sent them, and nothing else.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from types import MappingProxyType

from procscope.values import frozen

FORWARDED = frozenset(
    {
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGWINCH,
        signal.SIGCONT,
    }
)
"""Stops (TSTP, TTIN, TTOU) are missing: the launcher stops with its command, as any job."""

_OURS = frozenset({signal.SIGCHLD, signal.SIGIO})
"""What launcher and init wait for themselves: ends of children, and what a pipe has to tell."""

_RESET_IN_COMMAND = (signal.SIGPIPE, signal.SIGXFSZ)
"""Python ignores these for itself; a command expects the default."""


@frozen
class SignalState:
    """The signals as they were before the sandbox began to wait for them."""

    mask: frozenset[int]
    waited: frozenset[int]
    """What `forward_until` waits for: blocked, and queued until it does."""


def block() -> SignalState:
    """Block what is to be forwarded and SIGCHLD, and return the state that was.

    Signals that the caller ignores (`nohup`) stay ignored, here and in the command.
    """
    # Inherited as ignored, it would have the kernel reap the children and lose their status.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    heeded = {number for number in FORWARDED if signal.getsignal(number) is not signal.SIG_IGN}
    waited = frozenset[int](heeded | _OURS)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    return SignalState(frozenset(int(number) for number in mask), waited)


def restore(state: SignalState) -> None:
    """Set the mask that was before `block`."""
    signal.pthread_sigmask(signal.SIG_SETMASK, state.mask)


def restore_for_command(state: SignalState) -> None:
    """Give the command the signals as the launcher got them."""
    for number in _RESET_IN_COMMAND:
        signal.signal(number, signal.SIG_DFL)
    restore(state)


def forward_until(
    state: SignalState,
    pid: int,
    reap: Callable[[], int | None],
    handlers: Mapping[int, Callable[[], None]] = MappingProxyType({}),
) -> int:
    """Pass signals on to `pid` until `reap`, called after each SIGCHLD, returns a wait status.

    Those that have a handler of their own get that instead.
    """
    while True:
        status = reap()
        if status is not None:
            return status
        info = signal.sigwaitinfo(state.waited)
        if info.si_signo in handlers:
            handlers[info.si_signo]()
        elif info.si_signo not in _OURS and info.si_code <= 0:
            os.kill(pid, info.si_signo)


def exit_code(status: int) -> int:
    """Return a wait status as a shell's exit code: 128 + signal for a process that was killed."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code
