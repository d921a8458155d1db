"""Containers of each kind, with the views at their places: what a daemon has to give back."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from procscope.linux import syscalls
from tests.faults.checks import FILES, Checker, Share, WrongError, form_of_host, host_share
from tests.faults.readers import MIB, bind_files
from tests.faults.service import COMMAND, Service
from tests.integration import agents
from tests.integration.agents import Agent, agent
from tests.integration.cgroups import container
from tests.integration.daemons import ENVIRONMENT
from tests.integration.files import ONLINE
from tests.integration.waiting import eventually, slowness

SUBORDINATE = 100_000
"""The first user of a user namespace, as the host counts."""


class Place(Protocol):
    """A container, as its owner has it."""

    name: str

    def life(self) -> tuple[int, int]:
        """Its first process: pid, and start in ticks."""
        ...

    def is_dead(self) -> bool:
        """Whether its files give an error."""
        ...

    def is_right(self) -> bool:
        """Whether its files tell of it."""
        ...

    def is_hosts(self) -> bool:
        """Whether its files are the host's."""
        ...

    def mounts(self) -> tuple[str, ...]:
        """Where something is mounted in it, each as often as it is."""
        ...


class Simple:
    """A process in a cgroup and a mount namespace of its own, which it never leaves."""

    def __init__(self, name: str, reader: Agent, share: Share) -> None:
        self.name = name
        self._reader = reader
        self._share = share

    def life(self) -> tuple[int, int]:
        """Its pid, and its start in ticks."""
        return self._reader.pid, start_ticks(self._reader.pid)

    def is_dead(self) -> bool:
        """Whether each file gives an error."""
        errors = [
            self._reader.call(agents.errno_of, agents.read, f"/proc/{name}") for name in FILES
        ]
        return all(errors)

    def is_right(self) -> bool:
        """Whether each file tells of it."""
        return self._is_of(self._share)

    def is_hosts(self) -> bool:
        """Whether each file is the host's."""
        return self._is_of(host_share())

    def mounts(self) -> tuple[str, ...]:
        """Where something is mounted."""
        return mount_points(self._reader.pid)

    def _is_of(self, share: Share) -> bool:
        try:
            for name in FILES:
                data = self._reader.call(agents.read, f"/proc/{name}")
                Checker(share, form_of_host()).check(name, data)
        except (OSError, WrongError):
            return False
        return True


class Sandbox:
    """A `procscope run` with a shell in it that shows what it sees whenever it is asked to."""

    def __init__(self, process: subprocess.Popen[str], total_kb: int) -> None:
        self.name = "procscope run"
        self._process = process
        self._total_kb = total_kb
        self._ask()

    def life(self) -> tuple[int, int]:
        """The launcher's: it ends when its command does."""
        assert self._process.poll() is None
        return self._process.pid, start_ticks(self._process.pid)

    def is_dead(self) -> bool:
        """Whether the file gives an error."""
        return self._ask() == "dead"

    def is_right(self) -> bool:
        """Whether the file tells of it."""
        return self._ask() == f"MemTotal: {self._total_kb} kB"

    def is_hosts(self) -> bool:
        """Whether the file is the host's."""
        return self._ask() == f"MemTotal: {host_share().memory_kb} kB"

    def mounts(self) -> tuple[str, ...]:
        """Where something is mounted."""
        return tuple(sorted(p for p in self._mount_points() if p.startswith(("/proc/", "/sys/de"))))

    def _mount_points(self) -> list[str]:
        return self._answers("cut -d ' ' -f 5 /proc/self/mountinfo; echo .")

    def _ask(self) -> str:
        script = "(read -r name total unit </proc/meminfo) 2>&- && "
        script += "read -r name total unit </proc/meminfo && echo $name $total $unit || echo dead"
        return self._answers(f"{{ {script}; }} 2>&-; echo .")[0]

    def _answers(self, script: str) -> list[str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{script}\n")
        self._process.stdin.flush()
        lines = []
        while (line := self._process.stdout.readline().strip()) != ".":
            assert self._process.poll() is None, "the sandbox has ended"
            lines.append(line)
        return lines


@contextmanager
def everywhere(served: Service) -> Iterator[list[Place]]:
    """One container of each kind that needs no engine, with right values in each."""
    with ExitStack() as stack:
        places: list[Place] = [
            stack.enter_context(plain(served)),
            stack.enter_context(read_only(served)),
            stack.enter_context(in_user_namespace(served)),
            stack.enter_context(sandbox(served)),
        ]
        for place in places:
            eventually(place.is_right, 2)
        yield places


@contextmanager
def plain(served: Service) -> Iterator[Place]:
    """A container of root's."""
    with container(memory_bytes=100 * MIB) as group, agent(group) as reader:
        reader.call(bind_files, served.mountpoint)
        yield Simple("plain", reader, Share(100 << 10, ONLINE))


@contextmanager
def read_only(served: Service) -> Iterator[Place]:
    """A container whose root cannot be written to."""
    with container(memory_bytes=110 * MIB) as group, agent(group) as reader:
        reader.call(bind_files, served.mountpoint)
        reader.call(make_read_only)
        yield Simple("read-only", reader, Share(110 << 10, ONLINE))


def make_read_only() -> None:
    """Make the root of this mount namespace read-only."""
    flags = syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_RDONLY
    syscalls.mount(None, "/", None, flags)


@contextmanager
def in_user_namespace(served: Service) -> Iterator[Place]:
    """A container whose root is no user of the host."""
    with (
        container(memory_bytes=120 * MIB, cpuset=str(ONLINE[0])) as group,
        agent(group) as reader,
    ):
        reader.call(syscalls.unshare, syscalls.CLONE_NEWUSER)
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{reader.pid}/{name}").write_text(f"0 {SUBORDINATE} 65536")
        reader.call(become_root)
        reader.call(bind_files, served.mountpoint)
        yield Simple("user namespace", reader, Share(120 << 10, ONLINE[:1]))


def become_root() -> None:
    """Be the root of this user namespace."""
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


@contextmanager
def sandbox(served: Service) -> Iterator[Place]:
    """A `procscope run` that has found this daemon at the default mount point.

    In a mount namespace of its own, where the default mount point is this daemon's.
    """
    hide = "mount -t tmpfs tmpfs /var/lib && mkdir /var/lib/procscope"
    script = f'{hide} && mount --rbind "$0" /var/lib/procscope && exec "$@"'
    run = (*COMMAND, "run", "--memory", "130m", "--", "sh")
    process = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", script, str(served.mountpoint), *run],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | ENVIRONMENT,
    )
    try:
        yield Sandbox(process, 130 << 10)
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(5.0 * slowness())
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        process.stdout.close()


def start_ticks(pid: int) -> int:
    """When a process started: the 22nd field of its `stat`."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def mount_points(pid: int) -> tuple[str, ...]:
    """Where something is mounted below /proc in a process's mount namespace, sorted."""
    lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    return tuple(sorted(line.split()[4] for line in lines if line.split()[4].startswith("/proc/")))
