"""The launcher's terminal: who is in its foreground, as job control of a shell expects it.

With the terminal on both stdin and stdout the sandbox gets a process group of its own, led by its
init: a shell inside can name that group, which it must to give the terminal back when it ends. The
launcher then does for the group what a shell does for a job. In a pipeline there is one group for
all, as everywhere: whoever else is in it (`| less`) needs the terminal too.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from procscope.values import frozen


@frozen
class Job:
    """The sandbox's process group, from the launcher's side."""

    tty: int
    stops: int
    """A pipe's end to read: a byte each time the command has stopped."""
    tell_stop: int
    """The other end, for init."""

    def start(self, group: int) -> None:
        """Make the child `group` a group of its own, in the foreground if we are."""
        try:
            os.setpgid(group, group)
        except ProcessLookupError:
            return
        self._hand_over(group)

    def handlers(self, group: int) -> Mapping[int, Callable[[], None]]:
        """Return what to do on SIGIO (the command has stopped) and SIGCONT."""
        return {
            signal.SIGIO: lambda: self._stop(group),
            signal.SIGCONT: lambda: self._go_on(group),
        }

    def _stop(self, group: int) -> None:
        """Stop with the command, so that the calling shell sees a stopped job."""
        os.read(self.stops, 64)
        # Comes back when we are continued; at once where nobody could do that, in an orphaned
        # process group, whose stop signals the kernel drops.
        os.killpg(os.getpgrp(), signal.SIGTSTP)
        self._go_on(group)

    def _go_on(self, group: int) -> None:
        self._hand_over(group)
        try:
            os.killpg(group, signal.SIGCONT)
        except ProcessLookupError:
            return

    def _hand_over(self, group: int) -> None:
        if os.tcgetpgrp(self.tty) == os.getpgrp():
            set_foreground(self.tty, group)


@contextmanager
def job_control() -> Iterator[Job | None]:
    """Give a job where stdin and stdout are the controlling terminal, and take that back after."""
    tty = _controlling_terminal()
    if tty is None:
        yield None
        return
    stops, tell_stop = os.pipe()
    try:
        if not (os.isatty(0) and os.isatty(1)):
            yield None
        else:
            os.set_blocking(tell_stop, False)
            # Data in the pipe becomes SIGIO, which the launcher waits for with the other signals.
            fcntl.fcntl(stops, fcntl.F_SETOWN, os.getpid())
            flags = fcntl.fcntl(stops, fcntl.F_GETFL)
            fcntl.fcntl(stops, fcntl.F_SETFL, flags | fcntl.FASYNC | os.O_NONBLOCK)
            yield Job(tty, stops, tell_stop)
    finally:
        if _is_orphaned(tty):
            set_foreground(tty, os.getpgrp())
        for descriptor in (stops, tell_stop, tty):
            os.close(descriptor)


def set_foreground(tty: int, group: int) -> None:
    """Give the terminal to a group, also from the background, which SIGTTOU is there to prevent."""
    before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    try:
        os.tcsetpgrp(tty, group)
    except OSError as error:
        # The terminal has hung up, or the group has ended: there is nobody to give it to.
        if error.errno not in (errno.EIO, errno.ENOTTY, errno.EPERM, errno.ESRCH):
            raise
    finally:
        signal.signal(signal.SIGTTOU, before)


def _controlling_terminal() -> int | None:
    try:
        return os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None


def _is_orphaned(tty: int) -> bool:
    """Return whether the foreground group is one that has ended with the sandbox."""
    try:
        os.killpg(os.tcgetpgrp(tty), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
