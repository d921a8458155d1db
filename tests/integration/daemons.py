"""`procscope serve` as a process of its own, and what can be seen of it from outside."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from procscope.daemon.config import ServeConfig
from procscope.linux import syscalls
from tests.integration.waiting import SOURCES, eventually

COMMAND = (sys.executable, "-m", "procscope")
ENVIRONMENT = {"PYTHONPATH": SOURCES}
NOBODY = 65534


class Daemon:
    """One running daemon."""

    def __init__(
        self,
        mountpoint: Path,
        state: Path,
        options: Sequence[str],
        prefix: Sequence[str],
        *,
        keeper: bool = False,
    ) -> None:
        self.mountpoint = mountpoint
        self.run_directory = state / "run"
        self._names = (str(mountpoint), "--run-directory", str(self.run_directory))
        self.options = (*(() if keeper else ("--no-keeper",)), *options)
        self._prefix = prefix
        self._state = state
        self._log = state / "log"
        self.notifications: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def records_directory(self) -> Path:
        """Where the daemon keeps its records."""
        config = ServeConfig(mountpoint=str(self.mountpoint), run_directory=str(self.run_directory))
        return Path(config.records_directory)

    @property
    def pid(self) -> int:
        """The supervisor."""
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start it, and wait until it says that it is ready, as a service manager does."""
        address = self._state / "notify"
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener,
            self._log.open("ab") as log,
        ):
            listener.bind(str(address))
            try:
                self.process = subprocess.Popen(
                    [*self._prefix, *COMMAND, "serve", *self._names, *self.options],
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    env=os.environ | ENVIRONMENT | {"NOTIFY_SOCKET": str(address)},
                )
                ended = os.pidfd_open(self.process.pid)
                try:
                    readable, _, _ = select.select([listener.fileno(), ended], [], [])
                finally:
                    os.close(ended)
                if listener.fileno() not in readable:
                    raise AssertionError(f"the daemon ended at its start:\n{self.log()}")
                self.notifications = listener.recv(4096).decode().splitlines()
            finally:
                address.unlink()

    def command(
        self, name: str, *options: str, prefix: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run `procscope NAME` on this daemon to its end."""
        return procscope_command(name, *self._names, *options, prefix=prefix)

    def status(self) -> dict[str, Any]:
        """What `procscope status` tells."""
        ended = self.command("status", "--json")
        assert ended.returncode == 0, ended.stderr
        status: dict[str, Any] = json.loads(ended.stdout)
        return status

    def log(self) -> str:
        """Everything that it has logged, over restarts too."""
        return self._log.read_text()

    def children(self, name: str) -> list[int]:
        """Its processes whose name starts with `name`."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return named(map(int, children.split()), name)

    def workers(self) -> list[int]:
        """Its workers."""
        return self.children("procscope-w")

    def kill_worker(self) -> None:
        """Kill one worker that has nothing to do, and wait for its successor."""
        before = eventually(self.workers)
        os.kill(before[0], signal.SIGKILL)
        eventually(lambda: len(self.workers()) == len(before) and before[0] not in self.workers())

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait()

    def kill(self) -> None:
        """Let it crash: nothing of it runs any more, and its mount stays."""
        children = self.children("")
        self.stop(signal.SIGKILL)
        eventually(lambda: not any(alive(pid) for pid in children))

    def close(self) -> None:
        """End it, and take away what a crash has left."""
        if self.process is not None and self.process.poll() is None:
            self.stop(signal.SIGINT)
        self.command("stop")
        while is_mounted(self.mountpoint):
            syscalls.umount2(str(self.mountpoint), syscalls.MNT_DETACH)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def mounted_types(mountpoint: Path, pid: int | str = "self") -> list[str]:
    """The types of the mounts at exactly this path, the topmost last."""
    found = []
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[4] == str(mountpoint):
            found.append(after.split()[0])
    return found


def is_mounted(mountpoint: Path) -> bool:
    """Whether anything is mounted there."""
    return bool(mounted_types(mountpoint))


@contextmanager
def folder() -> Iterator[Path]:
    """A folder that every user may look into, gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix="procscope-test-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextmanager
def daemon(*options: str, prefix: Sequence[str] = (), keeper: bool = False) -> Iterator[Daemon]:
    """A daemon of a test's own, ready to answer."""
    with folder() as state:
        (state / "mount").mkdir()
        one = Daemon(state / "mount", state, options, prefix, keeper=keeper)
        try:
            one.start()
            yield one
        finally:
            one.close()


AS_NOBODY = f"""
import encodings.ascii, locale, os, sys
import procscope.__main__, procscope.cli.serve, procscope.cli.show
from procscope.linux import syscalls
os.setgroups([])
os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
sys.exit(procscope.__main__.main(sys.argv[1:]))
"""
"""The interpreter may be where only root can read it: everything is imported first."""


def procscope_command(
    *args: str, prefix: Sequence[str] = (), as_nobody: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run `procscope ARGS` to its end."""
    command = (sys.executable, "-c", AS_NOBODY) if as_nobody else COMMAND
    return subprocess.run(
        [*prefix, *command, *args],
        capture_output=True,
        check=False,
        text=True,
        stdin=subprocess.DEVNULL,
        env=os.environ | ENVIRONMENT,
        cwd="/",
    )


def named(pids: Iterable[int], name: str) -> list[int]:
    """Those of the processes that live and whose name starts with `name`."""
    found = []
    for pid in pids:
        try:
            if Path(f"/proc/{pid}/comm").read_text().startswith(name):
                found.append(pid)
        except OSError:
            continue
    return found
