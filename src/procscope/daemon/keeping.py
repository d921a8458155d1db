"""The daemon's side of its keeper: starting one, giving it descriptors, getting them back."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import select
import signal
from collections.abc import Mapping

from procscope.daemon import fields, isolated, keeper, sockets
from procscope.daemon.fields import Fields

_log = logging.getLogger(__name__)
_TIMEOUT_S = 5.0
_LISTENER_FD = 3
_MAX_FDS = 1 << 20


class KeeperLink:
    """A connection to the keeper of one mountpoint."""

    def __init__(self, connection: sockets.Socket, mountpoint: str) -> None:
        """Raises OSError where it does not answer."""
        self._connection = connection
        self._mountpoint = mountpoint
        reply, fds = self._ask("hello")
        _close(fds)
        # The kernel knows only who made the socket listen, which was the daemon.
        pid = fields.first(reply, "pid") or ""
        self.pid = int(pid) if pid.isdecimal() else 0
        self.is_ending = fields.first(reply, "ending") is not None
        """Whether it gives out what it holds still, but takes nothing any more."""

    def put(self, held: Mapping[str, int]) -> None:
        """Have these descriptors kept. Raises OSError."""
        _, fds = self._ask("put", held)
        _close(fds)

    def get(self) -> dict[str, int]:
        """Return new descriptors of all that is kept, by name. Raises OSError."""
        reply, fds = self._ask("get")
        names = fields.every(reply, "name")
        if len(names) == len(fds):
            return dict(zip(names, fds, strict=True))
        _close(fds)
        raise OSError("the keeper's answer is of no use")

    def drop(self) -> None:
        """Have the keeper end."""
        with contextlib.suppress(OSError):
            self._ask("drop")
        self.close()

    def signal_its_end(self) -> None:
        """Have SIGIO tell this process when the keeper ends, and of its answers."""
        fd = self._connection.fileno()
        fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)

    def has_ended(self) -> bool:
        """Tell whether the keeper is gone."""
        poll = select.poll()
        poll.register(self._connection, 0)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Leave the keeper alone."""
        self._connection.close()

    def _ask(
        self, operation: str, held: Mapping[str, int] | None = None
    ) -> tuple[Fields, list[int]]:
        sockets.send(self._connection, *keeper.request(operation, self._mountpoint, held or {}))
        data, fds = sockets.receive(self._connection)
        try:
            reply = fields.unpack(data)
        except ValueError as error:
            _close(fds)
            raise OSError(f"the keeper's answer is of no use: {error}") from None
        if fields.first(reply, "ok") is None:
            _close(fds)
            raise OSError(f"the keeper refused: {fields.first(reply, 'error')}")
        return reply, fds


def find_keeper(
    state_directory: str, mountpoint: str, timeout_s: float = _TIMEOUT_S
) -> KeeperLink | None:
    """Return a link to the keeper that runs; None where none does."""
    try:
        return _link(state_directory, mountpoint, timeout_s)
    except OSError:
        return None


class StartingKeeper:
    """A keeper whose interpreter is starting, while whoever started it does something else."""

    def __init__(self, state_directory: str, mountpoint: str) -> None:
        """Start it. Raises OSError."""
        self._state_directory = state_directory
        self._mountpoint = mountpoint
        listener = sockets.listen(state_directory, keeper.SOCKET_NAME)
        with contextlib.closing(listener):
            self._pid = os.fork()
            if self._pid == 0:
                _become_keeper(listener, mountpoint)

    def link(self) -> KeeperLink:
        """Wait until it answers, and return a link to it. Raises OSError."""
        _, status = os.waitpid(self._pid, 0)
        if status:
            raise OSError(f"the keeper ended with status {os.waitstatus_to_exitcode(status)}")
        return _link(self._state_directory, self._mountpoint)


def _link(state_directory: str, mountpoint: str, timeout_s: float = _TIMEOUT_S) -> KeeperLink:
    connection = sockets.connect(state_directory, keeper.SOCKET_NAME, timeout_s)
    try:
        return KeeperLink(connection, mountpoint)
    except OSError:
        connection.close()
        raise


def _become_keeper(listener: sockets.Socket, mountpoint: str) -> None:
    """Execute the keeper in this forked process, with nothing of the daemon's but the socket."""
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        listening = os.dup2(listener.fileno(), _LISTENER_FD)
        # What the daemon was started with, such as somebody's pipe, would be held open for ever.
        os.closerange(_LISTENER_FD + 1, _MAX_FDS)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        command = isolated.command(keeper.__name__, mountpoint, str(listening))
        os.execv(command[0], command)
    finally:
        os._exit(1)


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
