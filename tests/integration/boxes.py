"""Containers made with unshare(1): mount and PID namespaces of their own, and what is in them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from procscope.linux.mountinfo import Mount, parse_mountinfo
from procscope.linux.processes import ProcessIdentity, identity_of
from tests.integration.cgroups import ROOT, Group

NAMESPACES = ("--mount", "--pid", "--fork", "--mount-proc", "--kill-child")
IN_USER_NAMESPACE = ("--user", "--map-root-user", *NAMESPACES)


class Box:
    """A process in namespaces of its own."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    @property
    def process(self) -> ProcessIdentity:
        """Which one it is."""
        identity = identity_of(self.pid)
        assert identity is not None
        return identity

    @property
    def namespace(self) -> int:
        """Its mount namespace."""
        return os.stat(f"/proc/{self.pid}/ns/mnt").st_ino

    def path(self, path: str) -> str:
        """A file of it, for a reader outside."""
        return f"/proc/{self.pid}/root{path}"

    def mounts(self) -> list[Mount]:
        """What is mounted in it."""
        text = Path(f"/proc/{self.pid}/mountinfo").read_text(errors="surrogateescape")
        return list(parse_mountinfo(text))

    def at(self, mount_point: str) -> list[Mount]:
        """What is mounted at one place, each over the one before."""
        return [mount for mount in self.mounts() if mount.mount_point == mount_point]

    def views(self) -> dict[str, str]:
        """The views of any daemon at places of their own: mount point -> device."""
        return {
            mount.mount_point: mount.device
            for mount in self.mounts()
            if mount.fstype == "fuse.procscope" and mount.root != "/"
        }

    def run(self, script: str) -> str:
        """Run a script in its namespaces."""
        where = ("--target", str(self.pid), "--mount", "--pid", "--user", "--preserve-credentials")
        return subprocess.run(
            ["nsenter", *where, "sh", "-euc", script], check=True, capture_output=True, text=True
        ).stdout


@contextmanager
def box(
    script: str = "", *, namespaces: Sequence[str] = NAMESPACES, group: Group = ROOT
) -> Iterator[Box]:
    """A process that has run `script` in its namespaces, and then sleeps."""
    script = f"{script}\necho ready\nexec sleep infinity"
    with subprocess.Popen(
        ["unshare", *namespaces, "sh", "-euc", script], stdout=subprocess.PIPE
    ) as unshare:
        try:
            assert unshare.stdout is not None
            assert unshare.stdout.readline() == b"ready\n"
            children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text()
            pid = int(children) if "--fork" in namespaces else unshare.pid
            group.add(pid)
            yield Box(pid)
        finally:
            unshare.kill()
