"""Real cgroups for tests, on v1, hybrid and v2, that undo themselves.

A group is made in every hierarchy of the host, as a container runtime does it.
"""

from __future__ import annotations

import errno
import os
import secrets
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.integration.waiting import eventually
from tests.levels import CgroupMount, cgroup_mounts

PERIOD_USEC = 100_000
_SUBTREE = ("cpu", "cpuset", "io", "memory", "pids")


@cache
def mounts() -> tuple[CgroupMount, ...]:
    """One mount of each hierarchy."""
    found: dict[int, CgroupMount] = {}
    for mount in cgroup_mounts():
        found.setdefault(os.stat(mount.mountpoint).st_dev, mount)
    return tuple(found.values())


@cache
def mount_of(controller: str) -> CgroupMount | None:
    """The hierarchy of a controller by its v1 or v2 name, v1 first; "" is the v2 hierarchy."""
    by_version = sorted(mounts(), key=lambda mount: mount.version)
    names = {"cpuacct": ("cpuacct", "cpu"), "io": ("blkio", "io")}.get(controller, (controller,))
    for mount in by_version:
        if mount.version == 2 and controller == "":
            return mount
        if mount.version == 1 and names[0] in mount.controllers:
            return mount
        if mount.version == 2 and names[-1] in mount.controllers:
            return mount
    return None


def version_of(controller: str) -> int:
    """1 or 2."""
    mount = mount_of(controller)
    assert mount is not None, f"no hierarchy has {controller}"
    return mount.version


def write(path: Path, text: str) -> None:
    """Write in one write(2) to a file that is there."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Group:
    """One cgroup in every hierarchy."""

    path: str
    """Below the root, such as `/0123…`; the empty text is the root itself."""

    @property
    def directories(self) -> tuple[Path, ...]:
        """Its directory in every hierarchy."""
        return tuple(Path(f"{mount.mountpoint}{self.path}") for mount in mounts())

    def directory(self, controller: str) -> Path:
        """Its directory in the hierarchy of one controller."""
        mount = mount_of(controller)
        assert mount is not None
        return Path(f"{mount.mountpoint}{self.path}")

    def file(self, controller: str, v1: str, v2: str) -> Path:
        """A control file, which the versions name differently."""
        return self.directory(controller) / (v1 if version_of(controller) == 1 else v2)

    def add(self, pid: int) -> None:
        """Move a process here, 0 for the caller."""
        for directory in self.directories:
            write(directory / "cgroup.procs", str(pid))

    def processes(self) -> set[int]:
        """Every process in it."""
        found: set[int] = set()
        for directory in self.directories:
            try:
                found.update(map(int, (directory / "cgroup.procs").read_text().split()))
            except OSError:
                continue
        return found

    def set_memory(self, limit_bytes: int | None) -> None:
        """Limit its memory, or no longer."""
        unlimited = "-1" if version_of("memory") == 1 else "max"
        text = unlimited if limit_bytes is None else str(limit_bytes)
        write(self.file("memory", "memory.limit_in_bytes", "memory.max"), text)

    def set_cpus(self, cpus: float | None) -> None:
        """Limit its CPU time by a quota of so many CPUs, or no longer."""
        quota = None if cpus is None else round(cpus * PERIOD_USEC)
        if version_of("cpu") == 2:
            text = f"{'max' if quota is None else quota} {PERIOD_USEC}"
            write(self.directory("cpu") / "cpu.max", text)
            return
        write(self.directory("cpu") / "cpu.cfs_quota_us", str(-1 if quota is None else quota))

    def set_cpuset(self, cpus: str) -> None:
        """Let it run on these CPUs only."""
        write(self.directory("cpuset") / "cpuset.cpus", cpus)

    def cpu_usage_ns(self) -> int:
        """CPU time that the kernel has counted for it, exactly."""
        if version_of("cpuacct") == 1:
            return int((self.directory("cpuacct") / "cpuacct.usage").read_text())
        return int(flat(self.directory("cpu") / "cpu.stat")["usage_usec"]) * 1000

    def throttled_ns(self) -> int:
        """Time that its quota has withheld from it."""
        stat = flat(self.directory("cpu") / "cpu.stat")
        if version_of("cpu") == 1:
            return int(stat["throttled_time"])
        return int(stat["throttled_usec"]) * 1000

    def memory_usage_bytes(self) -> int:
        """Memory that is charged to it."""
        name = self.file("memory", "memory.usage_in_bytes", "memory.current")
        return int(name.read_text())

    def memory_stat(self) -> Mapping[str, str]:
        """`memory.stat`."""
        return flat(self.directory("memory") / "memory.stat")

    @contextmanager
    def child(self, name: str) -> Iterator[Group]:
        """A cgroup below this one, with all controllers; on v2 this one may hold no process."""
        with made(f"{self.path}/{name}") as group:
            yield group

    @contextmanager
    def plain_child(self, name: str) -> Iterator[Group]:
        """A cgroup below this one that has no limits of its own, as systemd makes inside."""
        with made(f"{self.path}/{name}", controllers=False) as group:
            yield group


ROOT = Group("")


def flat(path: Path) -> dict[str, str]:
    """A flat keyed file."""
    return dict(line.split(" ", 1) for line in path.read_text().splitlines())


@contextmanager
def made(path: str, *, controllers: bool = True) -> Iterator[Group]:
    """A cgroup at `path` in every hierarchy, gone afterwards with all that is in it."""
    group = Group(path)
    with ExitStack() as stack:
        for mount in mounts():
            directory = Path(f"{mount.mountpoint}{path}")
            if mount.version == 2 and controllers:
                stack.enter_context(enabled_controllers(directory.parent, mount))
            directory.mkdir()
            stack.callback(remove, directory)
            if "cpuset" in mount.controllers and mount.version == 1:
                for name in ("cpuset.cpus", "cpuset.mems"):
                    write(directory / name, (directory.parent / name).read_text())
        yield group


@contextmanager
def enabled_controllers(directory: Path, mount: CgroupMount) -> Iterator[None]:
    """Turn the controllers on for what is below a v2 cgroup, which may hold no process meanwhile.

    They stay on at the root, where many want them and processes may be all the same.
    """
    available = (directory / "cgroup.controllers").read_text().split()
    enabled = (directory / "cgroup.subtree_control").read_text().split()
    turned = [name for name in _SUBTREE if name in available and name not in enabled]
    for controller in turned:
        write(directory / "cgroup.subtree_control", f"+{controller}")
    try:
        yield
    finally:
        if directory != mount.mountpoint:
            for controller in turned:
                write(directory / "cgroup.subtree_control", f"-{controller}")


def remove(directory: Path) -> None:
    """Kill what is in a cgroup and remove it, with what is below it."""

    def gone() -> bool:
        for path, _, _ in os.walk(directory, topdown=False):
            for pid in Path(path, "cgroup.procs").read_text().split():
                if int(pid) not in (0, os.getpid()):
                    _kill(int(pid))
            try:
                os.rmdir(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                return False
        return True

    eventually(gone)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def new_id() -> str:
    """A container's id: 64 hex digits."""
    return secrets.token_hex(32)


@contextmanager
def container(
    *,
    memory_bytes: int | None = None,
    cpus: float | None = None,
    cpuset: str | None = None,
    path: str | None = None,
) -> Iterator[Group]:
    """A cgroup that is recognised as a container, with these limits."""
    with made(path or f"/{new_id()}") as group:
        if memory_bytes is not None:
            group.set_memory(memory_bytes)
        if cpus is not None:
            group.set_cpus(cpus)
        if cpuset is not None:
            group.set_cpuset(cpuset)
        yield group
