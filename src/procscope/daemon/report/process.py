"""The process that answers over HTTP: started by the agent, and what it does.

It is executed, not forked: it holds nothing of the agent's but the board, and may have threads.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time

from procscope import __version__
from procscope.daemon import control, isolated
from procscope.daemon.board import Board, Phase
from procscope.daemon.config import ServeConfig
from procscope.daemon.report import metrics, server
from procscope.daemon.report.probe import Prober, check_mount
from procscope.errors import ProcscopeError
from procscope.linux import syscalls
from procscope.linux.address import Address
from procscope.linux.processes import has_ended
from procscope.values import replace
from procscope.views.cpus import CpuCount

_BOARD_FD = 3
_READY = "ready"
_STARTING_S = 10.0
_STALE_S = 10.0
"""The supervisor goes round its loop five times a second."""
_STATUS_S = 2.0
_MAX_REPORT_BYTES = 4096
_NOT_READY = {
    Phase.STARTING: "the agent is starting",
    Phase.WAITING: "another daemon has the mount and does not hand it over",
}


class Reporter:
    """The agent's side: starts the process, and starts it again."""

    def __init__(self, config: ServeConfig, address: Address, board: Board) -> None:
        """Raises ProcscopeError where it cannot listen."""
        self._config = config
        self._address = address
        self._board = board
        self._next_start_s = 0.0
        self.pid = self._start()

    def look_after(self) -> None:
        """Start it again, a second later, where it has ended."""
        if self.pid and not os.waitpid(self.pid, os.WNOHANG)[0]:
            return
        if self.pid:
            self.pid, self._next_start_s = 0, time.monotonic() + 1.0
        if time.monotonic() >= self._next_start_s:
            with contextlib.suppress(ProcscopeError):
                self.pid = self._start()

    def stop(self) -> None:
        """End it."""
        if not self.pid:
            return
        pidfd = os.pidfd_open(self.pid)
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            # One whose read waits for a worker that has died cannot end yet.
            if has_ended(pidfd, 1.0):
                os.waitpid(self.pid, 0)
        finally:
            os.close(pidfd)
            self.pid = 0

    def _start(self) -> int:
        reader, writer = os.pipe()
        told = _to_json(self._config, self._address)
        command = isolated.command(__name__, str(os.getpid()), told)
        try:
            pid = os.posix_spawn(
                command[0],
                command,
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, writer, 1),
                    (os.POSIX_SPAWN_DUP2, self._board.fd, _BOARD_FD),
                ],
                setsigmask=(),
                setsigdef=(signal.SIGTERM, signal.SIGINT),
            )
        finally:
            os.close(writer)
        try:
            readable, _, _ = select.select([reader], [], [], _STARTING_S)
            said = os.read(reader, _MAX_REPORT_BYTES).decode(errors="replace") if readable else ""
        finally:
            os.close(reader)
        if said == _READY:
            return pid
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise ProcscopeError(said or f"the process that listens at {self._address} did not start")


def _to_json(config: ServeConfig, address: Address) -> str:
    return json.dumps(
        {
            "mountpoint": config.mountpoint,
            "run_directory": config.run_directory,
            "files": config.files,
            "cpu_count": config.cpu_count.name,
            "address": str(address),
        }
    )


class Report:
    """What the process tells."""

    def __init__(self, config: ServeConfig, board: Board, supervisor: int) -> None:
        """`supervisor` is the agent's pid."""
        self._config = config
        self._board = board
        self._supervisor = supervisor
        self._prober = Prober(lambda: check_mount(config))

    def routes(self) -> server.Routes:
        """Return what each path answers."""
        return {
            "/healthz": lambda: server.verdict(self._illness()),
            "/readyz": lambda: server.verdict(self._unreadiness()),
            "/metrics": lambda: server.metrics(self._metrics()),
        }

    def _illness(self) -> str:
        age_s = self._board.beat_age_s()
        return f"the supervisor hangs since {age_s:.0f} s" if age_s > _STALE_S else ""

    def _unreadiness(self) -> str:
        return _NOT_READY.get(self._board.phase, "") or self._prober.problem()

    def _metrics(self) -> str:
        ready = not self._unreadiness()
        found = metrics.collect(__version__, ready=ready, status=self._status())
        return metrics.render(found)

    def _status(self) -> dict[str, object] | None:
        """The supervisor's own status; on standby another one answers, which is not ours."""
        if self._board.phase is not Phase.SERVING:
            return None
        with contextlib.suppress(ProcscopeError, OSError):
            status = control.ask(self._config.state_directory, "status", _STATUS_S)
            if status is not None and status.get("pid") == self._supervisor:
                return status
        return None


def main(arguments: list[str]) -> int:
    """Answer until the agent ends: its pid, and JSON of what it is about, are the arguments."""
    supervisor = int(arguments[0])
    syscalls.set_pdeathsig(signal.SIGKILL)
    syscalls.set_name("procscope-http")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.getppid() != supervisor:
        return 0
    told = json.loads(arguments[1])
    config = replace(
        ServeConfig(mountpoint=told["mountpoint"], run_directory=told["run_directory"]),
        files=tuple(told["files"]),
        cpu_count=CpuCount[told["cpu_count"]],
    )
    try:
        listener = Address.parse(told["address"]).listen()
    except ProcscopeError as error:
        _say(str(error))
        return 1
    report = Report(config, Board.adopt(_BOARD_FD), supervisor)
    answering = server.ReportServer(listener, report.routes())
    _say(_READY)
    answering.serve_forever()
    return 0


def _say(text: str) -> None:
    """Tell the agent, and no more."""
    os.write(1, text.encode())
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
