"""Replacing the running code by what is installed now, in the same process.

The newer code is tried first, as a child that does everything but serve. Where that fails, nothing
has changed. Where it succeeds, the supervisor executes it: its pid, its children and its
descriptors stay, and the mount with them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import NoReturn

from procscope.daemon.control import Order
from procscope.daemon.inheritance import TRIAL_NAME, Inheritance

TRIAL_PATIENCE_S = 30.0
_OWN_PREFIX = "procscope: "
_MAX_REPORT_BYTES = 4096


def command() -> list[str]:
    """Return the command that this process was started with, by the interpreter's full path."""
    return [sys.executable, *sys.orig_argv[1:]]


class Trial:
    """The newer code, doing everything but serve."""

    def __init__(self, inheritance: Inheritance, order: Order | None) -> None:
        """Start it. `order` is who wants to know how it ends. Raises OSError."""
        self.order = order
        self._started_at_s = time.monotonic()
        self._report = os.memfd_create("procscope-trial")
        environment = os.environ | {TRIAL_NAME: "1"} | inheritance.to_environment()
        # Nothing of the trial may take part in the notifications of the daemon.
        environment.pop("NOTIFY_SOCKET", None)
        try:
            self.pid = os.posix_spawn(
                sys.executable,
                command(),
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, self._report, 1),
                    (os.POSIX_SPAWN_DUP2, self._report, 2),
                ],
                setsigmask=(),
            )
        except OSError:
            os.close(self._report)
            raise
        finally:
            for fd in inheritance.fds.values():
                os.set_inheritable(fd, False)

    def outcome(self) -> str | None:
        """Return "" where the newer code is fit to serve, why it is not, None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            return self._verdict(status)
        if time.monotonic() - self._started_at_s > TRIAL_PATIENCE_S:
            self.abandon()
            return f"it did not come up within {TRIAL_PATIENCE_S:.0f} s"
        return None

    def abandon(self) -> None:
        """Kill it."""
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._report)

    def _verdict(self, status: int) -> str:
        said = os.pread(self._report, 1 << 20, 0)[-_MAX_REPORT_BYTES:].decode("utf-8", "replace")
        os.close(self._report)
        if status == 0:
            return ""
        lines = [line for line in said.splitlines() if line.strip()]
        return (
            lines[-1].removeprefix(_OWN_PREFIX)
            if lines
            else f"it ended with status {os.waitstatus_to_exitcode(status)}"
        )


def execute(inheritance: Inheritance) -> NoReturn:
    """Execute the newer code in this process. Raises OSError where that is not possible."""
    os.execve(sys.executable, command(), os.environ | inheritance.to_environment())
