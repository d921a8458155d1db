"""The node agent: a supervisor that a newer one takes over from while both run.

A newer agent asks the one that serves to yield, takes the mount over with the workers that serve
it, and replaces them. The older one goes on standby: should the newer one vanish, it serves again.
"""

from __future__ import annotations

import logging
import os
import signal
import time

from procscope.daemon import control
from procscope.daemon.board import Board, Phase
from procscope.daemon.config import ServeConfig
from procscope.daemon.inheritance import Inheritance
from procscope.daemon.report.process import Reporter
from procscope.daemon.state import prepare_state
from procscope.daemon.supervisor import LOCK, SIGNALS, Supervisor
from procscope.errors import ExitCode, ProcscopeError
from procscope.linux import syscalls
from procscope.linux.address import Address

_log = logging.getLogger(__name__)
_NAME = "procscope-agent"
_LOOK_EVERY_S = 0.5
_ASK_EVERY_S = 0.2
_REFUSED_S = 5.0
"""How long a daemon that has refused to hand over is not asked again."""
_ANSWER_S = 30.0
_HEAD_START_S = 1.0
"""How long a newer agent may take to get the lock that was let go of for it."""


class NodeAgent:
    """Serves, or stands by."""

    def __init__(self, config: ServeConfig, listen: Address | None = None) -> None:
        """Begin to answer over HTTP. Raises ProcscopeError."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self._config = config
        self._board = Board.create()
        self._board.beat()
        self._reporter = Reporter(config, listen, self._board) if listen is not None else None

    def run(self) -> int:
        """Serve and stand by until a signal says to end; return the exit code.

        Raises ProcscopeError.
        """
        syscalls.set_name(_NAME)
        prepare_state(self._config)
        try:
            lock_fd = self._take_lock()
            while lock_fd is not None:
                supervisor = Supervisor(
                    self._config,
                    inherited=Inheritance({LOCK: lock_fd}),
                    on_ready=self._serving,
                    on_look=self._look,
                    board=self._board,
                )
                code = supervisor.run()
                if not supervisor.has_yielded:
                    return code
                lock_fd = self._stand_by()
            return ExitCode.OK
        finally:
            if self._reporter is not None:
                self._reporter.stop()

    def _serving(self) -> None:
        self._board.phase = Phase.SERVING

    def _look(self) -> None:
        self._board.beat()
        if self._reporter is not None:
            self._reporter.look_after()

    def _take_lock(self) -> int | None:
        """Return the lock's descriptor once whoever has it lets go; None where told to end."""
        next_ask_s = 0.0
        while (lock_fd := self._free_lock()) is None:
            if time.monotonic() >= next_ask_s:
                next_ask_s = time.monotonic() + self._ask_to_yield()
            elif self._is_told_to_end(_ASK_EVERY_S):
                return None
        return lock_fd

    def _ask_to_yield(self) -> float:
        """Ask the daemon that serves to hand over; return for how long not to ask again."""
        try:
            control.ask(self._config.state_directory, "yield", _ANSWER_S)
        except ProcscopeError as error:
            if self._board.phase is not Phase.WAITING:
                _log.warning("the daemon that serves does not hand over; waiting: %s", error)
                self._board.phase = Phase.WAITING
            return _REFUSED_S
        # It has, or nobody listens: it is starting, or ending.
        return _ASK_EVERY_S

    def _stand_by(self) -> int | None:
        _log.info("standing by; a newer agent serves %s", self._config.mountpoint)
        self._board.phase = Phase.STANDBY
        if self._is_told_to_end(_HEAD_START_S):
            return None
        lock_fd = self._wait_for_lock()
        if lock_fd is not None:
            _log.warning("the newer agent has gone; serving %s again", self._config.mountpoint)
        return lock_fd

    def _wait_for_lock(self) -> int | None:
        while True:
            lock_fd = self._free_lock()
            if lock_fd is not None or self._is_told_to_end(_LOOK_EVERY_S):
                return lock_fd

    def _free_lock(self) -> int | None:
        try:
            return control.acquire_lock(self._config.state_directory, self._config.mountpoint)
        except control.AlreadyServedError:
            return None

    def _is_told_to_end(self, wait_s: float) -> bool:
        """Wait, and look after what runs meanwhile; tell whether a signal says to end."""
        deadline_s = time.monotonic() + wait_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            received = signal.sigtimedwait(SIGNALS, min(left_s, _LOOK_EVERY_S))
            if received is not None and received.si_signo in (signal.SIGTERM, signal.SIGINT):
                _log.info("ending on %s", signal.Signals(received.si_signo).name)
                return True
            self._look()
            self._reap()
        return False

    def _reap(self) -> None:
        """Take leave of workers that the newer agent has replaced."""
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None or (self._reporter is not None and ended.si_pid == self._reporter.pid):
                return
            os.waitpid(ended.si_pid, os.WNOHANG)
