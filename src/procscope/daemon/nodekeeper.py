"""The keeper of a node, in the foreground: it outlives every daemon, and is ended by a signal.

Where a daemon has the lock, or one comes in time, it just ends: the daemon holds the descriptors
too. Otherwise it is the last one, and carries out the planned stop, so that no container is left
with a dead file. The same after two minutes without any daemon: who reads would wait for ever.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time

from procscope.daemon import control, keeper, sockets
from procscope.daemon.config import ServeConfig
from procscope.daemon.inheritance import Inheritance
from procscope.daemon.keeping import find_keeper
from procscope.daemon.state import prepare_state
from procscope.daemon.stopping import end_what_is_left
from procscope.errors import ExitCode, ProcscopeError
from procscope.linux import syscalls

_log = logging.getLogger(__name__)
_STEP_MS = 50
_NAME = "procscope-keep"


class NodeKeeper:
    """Holds what daemons put, one after the other."""

    def __init__(
        self, config: ServeConfig, patience_s: float, *, alone_s: float = keeper.ALONE_S
    ) -> None:
        """Listen for daemons. Raises ProcscopeError, OSError.

        `patience_s` is how long one may take to come after SIGTERM, `alone_s` before that.
        """
        self._config = config
        self._patience_s = patience_s
        self._alone_s = alone_s
        self._told_to_end = False
        self._wakeup, self._wakeup_writer = socket.socketpair()
        prepare_state(config)
        there = find_keeper(config.state_directory, config.mountpoint)
        if there is not None:
            there.close()
            raise ProcscopeError(
                f"{config.mountpoint} has a keeper already, process {there.pid}",
                hint="one for each mountpoint is enough",
            )
        self._keeper = keeper.Keeper(config.mountpoint, lasts=True)
        self._listener = sockets.listen(config.state_directory, keeper.SOCKET_NAME)
        self._server = keeper.Server(self._listener, self._keeper)
        self._said_held = False
        syscalls.set_name(_NAME)

    def run(self) -> int:
        """Keep until SIGTERM, and then end as a daemon that is there, or comes, allows."""
        self._heed_signals()
        _log.info("ready to hold the descriptors of %s", self._config.mountpoint)
        wait_ms = min(keeper.LOOK_EVERY_MS, self._alone_s * 1000)
        while not self._told_to_end:
            self._server.answer(wait_ms, self._wakeup.fileno())
            if self._keeper.is_pointless():
                self._keeper.release()
            self._tell_what_is_held()
            if self._keeper.held and self._server.alone_s() > self._alone_s:
                _log.error("no daemon has come for %.0f s", self._alone_s)
                self._take_everything_away()
        return self._end()

    def _heed_signals(self) -> None:
        def heed(*_: object) -> None:
            self._told_to_end = True

        self._wakeup_writer.setblocking(False)
        signal.set_wakeup_fd(self._wakeup_writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, heed)

    def _tell_what_is_held(self) -> None:
        holds = bool(self._keeper.held)
        if holds != self._said_held:
            self._said_held = holds
            _log.info("holding %s", "the daemon's descriptors" if holds else "nothing")

    def _end(self) -> int:
        """End, and leave everything to a daemon; where there is none, take everything away.

        A daemon may be told to end at the same moment. It lets go of the lock first, and then
        looks whether its keeper has hung up; so here that is done first.
        """
        self._keeper.ending = True
        self._keeper.was_got = self._server.hang_up()
        if self._was_taken_over():
            _log.info("ending; a daemon serves on")
            return ExitCode.OK
        _log.info("no daemon runs; waiting %.0f s for one", self._patience_s)
        deadline_s = time.monotonic() + self._patience_s
        while time.monotonic() < deadline_s and not self._was_taken_over():
            self._server.answer(_STEP_MS)
        if self._has_daemon() or not self._take_everything_away():
            _log.info("ending; a daemon has taken over")
        return ExitCode.OK

    def _was_taken_over(self) -> bool:
        """Tell whether a daemon runs that has got what is held."""
        return self._has_daemon() and (self._keeper.was_got or not self._keeper.held)

    def _has_daemon(self) -> bool:
        return control.lock_holder(self._config.state_directory) is not None

    def _take_everything_away(self) -> bool:
        """Carry out the planned stop; False where a daemon is faster. Raises ProcscopeError."""
        try:
            lock_fd = control.acquire_lock(self._config.state_directory, self._config.mountpoint)
        except control.AlreadyServedError:
            return False
        _log.info("taking the files away from containers, and unmounting")
        held, self._keeper.held = self._keeper.held, {}
        try:
            end_what_is_left(self._config, Inheritance(held), None)
        finally:
            os.close(lock_fd)
        return True
