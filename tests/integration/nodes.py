"""A Kubernetes node as the agent sees it: pods of agents and keepers, each in a cgroup of its own.

A pod is killed as the kubelet does it: every process of its cgroup at once.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from procscope.daemon.config import ServeConfig
from procscope.linux import syscalls
from tests.integration.cgroups import Group, container
from tests.integration.daemons import COMMAND, ENVIRONMENT, alive, folder, mounted_types
from tests.integration.waiting import eventually

_ENTER = 'for file in $CGROUPS; do echo $$ > "$file" || exit; done; exec "$@"'
START_S = 10.0
"""Three interpreters start at once, on a machine that may be busy."""


class Pod:
    """One process and what it has started, in a cgroup of their own."""

    def __init__(self, group: Group, command: Sequence[str], log: Path) -> None:
        self.group = group
        self._log = log
        files = " ".join(f"{directory}/cgroup.procs" for directory in group.directories)
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                ["sh", "-c", _ENTER, "sh", *command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=os.environ | ENVIRONMENT | {"CGROUPS": files},
            )

    @property
    def pid(self) -> int:
        """The main process."""
        return self.process.pid

    def log(self) -> str:
        """What it has said."""
        return self._log.read_text()

    def says(self, text: str, *, times: int = 1) -> None:
        """Wait until it has said this so many times."""
        try:
            eventually(lambda: self.log().count(text) >= times, START_S)
        except AssertionError:
            raise AssertionError(f"it does not say {text!r}:\n{self.log()}") from None

    def processes(self) -> set[int]:
        """Those that live."""
        return {pid for pid in self.group.processes() if alive(pid)}

    def kill(self) -> None:
        """Kill all of it at once.

        One whose read a worker has taken that is dead now ends when somebody answers the read.
        """

        def has_died() -> bool:
            able = [pid for pid in self.processes() if not is_uninterruptible(pid)]
            for pid in able:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not able

        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        eventually(has_died)
        self.process.wait()

    def terminate(self) -> None:
        """Ask the main process to end."""
        self.process.terminate()

    def ends(self, bound_s: float = START_S) -> int:
        """Wait for the end of the main process, then kill what is left, as the kubelet does."""
        code = eventually(lambda: self.process.poll() is not None, bound_s)
        assert code
        left = self.process.returncode
        self.kill()
        return left


class HttpPod(Pod):
    """An agent that answers over HTTP."""

    def __init__(self, group: Group, command: Sequence[str], log: Path, port: int) -> None:
        super().__init__(group, command, log)
        self.port = port

    def get(self, path: str) -> tuple[int, str]:
        """Status and text of a path; 0 where nobody listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def becomes_ready(self) -> None:
        """Wait until it says that it is."""
        try:
            eventually(lambda: self.get("/readyz")[0] == 200, START_S)
        except AssertionError:
            raise AssertionError(f"{self.get('/readyz')}:\n{self.log()}") from None


class Node:
    """What pods of one node share: the mountpoint's parent, and the run directory."""

    def __init__(self, stack: ExitStack, place: Path, prefix: Sequence[str] = ()) -> None:
        self.mountpoint = place / "lib/mount"
        self.run_directory = place / "run"
        self.mountpoint.parent.mkdir()
        self.prefix = prefix
        self.keeper_command: Sequence[str] = (*COMMAND, "keeper")
        self._place = place
        self._stack = stack
        self.pods: list[Pod] = []
        """All that were ever started."""

    @property
    def state_directory(self) -> Path:
        """Lock, sockets and records."""
        config = ServeConfig(mountpoint=str(self.mountpoint), run_directory=str(self.run_directory))
        return Path(config.state_directory)

    @property
    def names(self) -> tuple[str, ...]:
        """The arguments by which every command finds this node's daemon."""
        return (str(self.mountpoint), "--run-directory", str(self.run_directory))

    def agent(self, *options: str) -> HttpPod:
        """Start an agent's pod."""
        port = free_port()
        listen = ("--listen", f"127.0.0.1:{port}")
        command = [*self.prefix, *COMMAND, "agent", *self.names, *listen, *options]
        pod = HttpPod(self._group(), command, self._next_log("agent"), port)
        self.pods.append(pod)
        return pod

    def keeper(self, *options: str) -> Pod:
        """Start a keeper's pod."""
        command = [*self.prefix, *self.keeper_command, *self.names, *options]
        pod = Pod(self._group(), command, self._next_log("keeper"))
        self.pods.append(pod)
        return pod

    def processes(self) -> set[int]:
        """Of all pods."""
        return {pid for pod in self.pods for pid in pod.processes()}

    def mounted(self) -> int:
        """How many mounts there are at the mountpoint, as this process sees it."""
        return len(mounted_types(self.mountpoint))

    def close(self) -> None:
        """Kill every pod, and take away what is mounted then."""
        for pod in self.pods:
            pod.kill()
        while self.mounted():
            syscalls.umount2(str(self.mountpoint), syscalls.MNT_DETACH)

    def _group(self) -> Group:
        return self._stack.enter_context(container(memory_bytes=512 << 20))

    def _next_log(self, name: str) -> Path:
        return self._place / f"{name}-{len(self.pods)}.log"


@contextmanager
def node(prefix: Sequence[str] = ()) -> Iterator[Node]:
    """A node of a test's own; every command of its pods comes after `prefix`."""
    with ExitStack() as stack:
        place = stack.enter_context(folder())
        one = Node(stack, place, prefix)
        try:
            yield one
        finally:
            one.close()


def is_uninterruptible(pid: int) -> bool:
    """Whether a process waits for what even a signal does not end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "D"
    except OSError:
        return False


def free_port() -> int:
    """A port that nobody listens at now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
