"""Processes that stay the same ones: a pid alone may be in use again by the time it is used."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time

from procscope.linux.procfs import parse_task_stat
from procscope.values import frozen


@frozen
class ProcessIdentity:
    """A pid and when its process was started, in USER_HZ ticks since boot: unique for one boot."""

    pid: int
    start_ticks: int


def identity_of(pid: int, proc: str = "/proc") -> ProcessIdentity | None:
    """Return the identity of a process that runs; None where none does, a zombie included."""
    try:
        with open(f"{proc}/{pid}/stat", "rb") as file:
            stat = parse_task_stat(file.read())
    except (OSError, ValueError):
        return None
    return None if stat.state in ("Z", "X") else ProcessIdentity(pid, stat.start_ticks)


def open_process(identity: ProcessIdentity, proc: str = "/proc") -> int | None:
    """Return a pidfd of exactly this process; None where it has ended."""
    try:
        pidfd = os.pidfd_open(identity.pid)
    except (OSError, ValueError, OverflowError):
        return None
    # The descriptor is of whoever has the pid now; that it is the right one is told afterwards.
    if identity_of(identity.pid, proc) == identity:
        return pidfd
    os.close(pidfd)
    return None


def terminate(identity: ProcessIdentity, patience_s: float, proc: str = "/proc") -> bool:
    """Ask a process to end, wait, and kill it if it takes longer than `patience_s`.

    It may be anybody's child. Returns whether it had to be killed.
    """
    pidfd = open_process(identity, proc)
    if pidfd is None:
        return False
    try:
        for number, wait_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, 10.0)):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, number)
            if has_ended(pidfd, wait_s):
                return number == signal.SIGKILL
        return True
    finally:
        os.close(pidfd)


def has_ended(pidfd: int, wait_s: float = 0.0) -> bool:
    """Tell whether a process has ended, or does so within `wait_s`."""
    deadline_s = time.monotonic() + wait_s
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    # PEP 475: poll(2) is tried again by the interpreter when a signal comes.
    return bool(poll.poll(max(0.0, deadline_s - time.monotonic()) * 1000))
