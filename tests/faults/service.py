"""`procscope serve` as a service manager runs it, and everything that belongs to it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import procscope
from procscope.daemon.config import ServeConfig
from procscope.linux import syscalls
from tests.integration.daemons import alive, folder, is_mounted
from tests.integration.waiting import eventually, slowness

COMMAND = (sys.executable, "-m", "procscope")
SOURCES = Path(procscope.__file__).parents[1]
START_S = 10.0
_TOKEN = "PROCSCOPE_FAULTS_SERVICE"
_COMMAND_S = 60.0


class Service:
    """One daemon over all its lives."""

    def __init__(self, state: Path, options: Sequence[str], sources: Path) -> None:
        self.mountpoint = state / "mount"
        self.run_directory = state / "run"
        self.process: subprocess.Popen[bytes] | None = None
        self.prefix: Sequence[str] = ()
        self._options = options
        self._log = state / "log"
        self._token = f"{_TOKEN}={secrets.token_hex(8)}".encode()
        name, _, value = self._token.decode().partition("=")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = str(state / "notify")
        self._listener.bind(address)
        self.environment = os.environ | {
            "PYTHONPATH": str(sources),
            "NOTIFY_SOCKET": address,
            name: value,
        }

    @property
    def places(self) -> tuple[str, ...]:
        """The arguments by which every command finds this daemon."""
        return (str(self.mountpoint), "--run-directory", str(self.run_directory))

    @property
    def pid(self) -> int:
        """The supervisor."""
        assert self.process is not None
        return self.process.pid

    @property
    def records_directory(self) -> Path:
        """Where the daemon keeps what it knows of containers."""
        mountpoint, run_directory = str(self.mountpoint), str(self.run_directory)
        return Path(ServeConfig(mountpoint, run_directory=run_directory).records_directory)

    def start(self) -> None:
        """Start it, after its predecessor's end, and wait until it says that it is ready."""
        if self.process is not None:
            self.wait()
        self._drain()
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, *COMMAND, "serve", *self.places, *self._options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
            )
        ended = os.pidfd_open(self.process.pid)
        try:
            bound_s = START_S * slowness()
            listening = self._listener.fileno()
            readable, _, _ = select.select([listening, ended], [], [], bound_s)
        finally:
            os.close(ended)
        if listening not in readable:
            what = "ended at its start" if readable else "is not ready in time"
            raise AssertionError(f"the daemon {what}:\n{self.log()[-4000:]}")

    def command(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `procscope NAME` for this daemon to its end, whatever comes of it."""
        environment = {k: v for k, v in self.environment.items() if k != "NOTIFY_SOCKET"}
        environment.pop(_TOKEN)
        done = subprocess.run(
            [*COMMAND, name, *self.places, *arguments],
            capture_output=True,
            check=False,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=_COMMAND_S * slowness(),
            env=environment,
        )
        self._drain()
        return done

    def status(self) -> Mapping[str, Any]:
        """What `procscope status --json` tells."""
        done = self.command("status", "--json")
        assert done.returncode == 0, done.stderr
        told: Mapping[str, Any] = json.loads(done.stdout)
        return told

    def processes(self) -> dict[int, str]:
        """All that belong to it and live, orphans too: pids, and names."""
        found = {}
        for entry in os.listdir("/proc"):
            if entry.isdecimal() and (name := self._name_of_own(entry)):
                found[int(entry)] = name
        return found

    def workers(self) -> list[int]:
        """Its workers, whosever children they are."""
        return [pid for pid, name in self.processes().items() if name.startswith("procscope-w")]

    def keeper(self) -> int:
        """The keeper; 0 where there is none."""
        found = (pid for pid, name in self.processes().items() if name == "procscope-keep")
        return next(found, 0)

    def kill_supervisor(self) -> None:
        """Let it crash; the others go on as they are."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def kill_everything(self) -> None:
        """Let all of it crash at once."""
        while pids := self.processes():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            eventually(lambda pids=tuple(pids): not any(alive(pid) for pid in pids))  # type: ignore[misc]
        if self.process is not None:
            self.process.wait()

    def wait(self, bound_s: float = 5.0) -> int:
        """Wait for the supervisor's end; return its exit code."""
        assert self.process is not None
        return self.process.wait(bound_s * slowness())

    def log(self) -> str:
        """Everything that it has logged, over all its lives."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def close(self) -> None:
        """End it without its help, and take its mount away."""
        self.kill_everything()
        while is_mounted(self.mountpoint):
            syscalls.umount2(str(self.mountpoint), syscalls.MNT_DETACH)
        self._listener.close()

    def _drain(self) -> None:
        """Take what it has told the service manager: a full queue would make it wait."""
        with contextlib.suppress(BlockingIOError):
            while self._listener.recv(4096, socket.MSG_DONTWAIT):
                continue

    def _name_of_own(self, entry: str) -> str:
        try:
            environment = Path(f"/proc/{entry}/environ").read_bytes()
            if self._token not in environment.split(b"\0"):
                return ""
            return Path(f"/proc/{entry}/comm").read_text().strip()
        except OSError:  # gone in between
            return ""


@contextmanager
def service(*options: str, sources: Path = SOURCES, started: bool = True) -> Iterator[Service]:
    """A daemon of a test's own, with two workers unless told."""
    with folder() as state:
        (state / "mount").mkdir()
        one = Service(state, options, sources)
        try:
            if started:
                one.start()
            yield one
        finally:
            one.close()
