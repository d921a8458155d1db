"""A `/proc` made of plain files: as much of it as identity and task states are read from."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from procscope.ids import Pid

HOST = "host"


def stat_line(pid: int, comm: str = "sh", state: str = "S", start_ticks: int = 100) -> bytes:
    """A line of `/proc/PID/stat` with the fields of a current kernel."""
    before_start = " ".join(["0"] * 18)
    after_start = " ".join(["0"] * 30)
    return f"{pid} ({comm}) {state} {before_start} {start_ticks} {after_start}\n".encode()


class FakeProc:
    """Processes are added one by one; PID namespaces are told apart by name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = str(root)
        self._namespaces = root.parent / f"{root.name}-namespaces"
        for directory in (root, self._namespaces):
            directory.mkdir(parents=True, exist_ok=True)
        self._link_namespace(root / "self", HOST)

    def add(
        self,
        pid: int,
        cgroup: str = "0::/\n",
        *,
        namespace: str = HOST,
        nspid: Sequence[int] = (),
        parent: int = 0,
        comm: str = "sh",
        state: str = "S",
        start_ticks: int = 100,
    ) -> Pid:
        """Add a process of one thread; `nspid` defaults to the host's numbering."""
        directory = self.root / str(pid)
        (directory / "task" / str(pid)).mkdir(parents=True)
        (directory / "cgroup").write_text(cgroup)
        numbers = "\t".join(map(str, nspid or (pid,)))
        (directory / "status").write_bytes(
            f"Name:\t{comm}\nPid:\t{pid}\nPPid:\t{parent}\nNSpid:\t{numbers}\n".encode()
        )
        (directory / "task" / str(pid) / "stat").write_bytes(
            stat_line(pid, comm, state, start_ticks)
        )
        self._link_namespace(directory, namespace)
        return Pid(pid)

    def move(self, pid: int, cgroup: str) -> None:
        """Give a process another cgroup."""
        (self.root / str(pid) / "cgroup").write_text(cgroup)

    def set_state(self, pid: int, state: str) -> None:
        """Give a process's only thread another state."""
        path = self.root / str(pid) / "task" / str(pid) / "stat"
        path.write_bytes(stat_line(pid, state=state))

    def end(self, pid: int) -> None:
        """A process ends. An open `cgroup` file of it, which the kernel fails, reads as nothing."""
        (self.root / str(pid) / "cgroup").write_text("")
        shutil.rmtree(self.root / str(pid))

    def _link_namespace(self, directory: Path, name: str) -> None:
        inode = self._namespaces / name
        inode.touch()
        (directory / "ns").mkdir(parents=True, exist_ok=True)
        os.link(inode, directory / "ns" / "pid")


def open_below(path: Path | str) -> list[str]:
    """The files below `path` that this process has open."""
    found: list[str] = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue
        if target.startswith(f"{path}/"):
            found.append(target)
    return found
