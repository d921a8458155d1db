"""Which process of a mount namespace stands for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from procscope.inject.namespaces import MountNamespace, find_namespaces, look_into

MOUNTS = "21 1 0:20 / / rw - tmpfs none rw\n"


class FakeProc:
    """Processes with a mount namespace, a root and a start time each."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.add("self", "host", 0)
        self.add("1", "host", 1)

    def add(self, pid: str, namespace: str, start_ticks: int, top: str = "/") -> None:
        folder = self.root / pid
        (folder / "ns").mkdir(parents=True)
        inode = self.root / f"{namespace}.namespace"
        inode.touch()
        os.link(inode, folder / "ns" / "mnt")
        (folder / "root").symlink_to(top)
        (folder / "mountinfo").write_text(MOUNTS)
        number = pid if pid.isdecimal() else "0"
        fields = f"{number} (name) S {' '.join(['0'] * 18)} {start_ticks} {' '.join(['0'] * 30)}"
        (folder / "stat").write_text(fields)

    def namespace(self) -> MountNamespace:
        """The only one besides the host's."""
        (found,) = find_namespaces(str(self.root))
        return found


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path)


def chosen(proc: FakeProc) -> int:
    found = look_into(proc.namespace(), str(proc.root))
    assert found is not None
    process, (mount,) = found
    assert mount.mount_point == "/"
    return process.pid


def test_the_oldest_process_is_chosen_whatever_its_number(proc: FakeProc) -> None:
    """Numbers begin anew: a child that lives for a moment may have a lower one than its parent."""
    proc.add("31000", "container", start_ticks=100)
    proc.add("400", "container", start_ticks=9000)
    assert chosen(proc) == 31000


def test_one_that_sees_the_whole_namespace_is_preferred(proc: FakeProc) -> None:
    proc.add("50", "container", start_ticks=100, top="/srv")
    proc.add("60", "container", start_ticks=200)
    assert chosen(proc) == 60


def test_one_that_has_gone_is_passed_over(proc: FakeProc) -> None:
    proc.add("50", "container", start_ticks=100)
    proc.add("60", "container", start_ticks=200)
    namespace = proc.namespace()
    (proc.root / "50" / "stat").unlink()
    found = look_into(namespace, str(proc.root))
    assert found is not None
    assert found[0].pid == 60
    (proc.root / "60" / "stat").unlink()
    assert look_into(namespace, str(proc.root)) is None
