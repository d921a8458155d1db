"""Cgroups for the benchmarks, on v1, v2 and hybrid hosts: containers with limits, and daemons."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PERIOD_USEC = 100_000
_CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")
_PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted cgroup hierarchy."""

    root: Path
    version: int
    controllers: frozenset[str]


@cache
def hierarchies() -> tuple[Hierarchy, ...]:
    """Return one mount of each hierarchy."""
    found: dict[int, Hierarchy] = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, root, kind, options, *_ = line.split()
        if kind in ("cgroup", "cgroup2") and os.path.isdir(root):
            version = 2 if kind == "cgroup2" else 1
            one = Hierarchy(Path(root), version, frozenset(options.split(",")))
            found.setdefault(os.stat(root).st_dev, one)
    return tuple(found.values())


def host_version() -> str:
    """Return which cgroups the host has: `v1`, `v2`, or `v1 and v2 (hybrid)`."""
    versions = {one.version for one in hierarchies()}
    return "v1 and v2 (hybrid)" if len(versions) == 2 else f"v{max(versions)}"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a container may use."""

    memory_bytes: int = 256 << 20
    cpus: float = 1.0
    """The quota. One reader cannot exceed 1, so that none is ever throttled."""


@contextlib.contextmanager
def containers(count: int, limits: Limits) -> Iterator[tuple[str, ...]]:
    """Make so many cgroups in every hierarchy; give their paths below the roots.

    Their names are those that Docker gives. They and what is in them are gone afterwards.
    """
    names = tuple(secrets.token_hex(32) for _ in range(count))
    with contextlib.ExitStack() as stack:
        for name in names:
            for hierarchy in hierarchies():
                stack.enter_context(_made(hierarchy, name))
            _limit(name, limits)
        yield names


@contextlib.contextmanager
def accounted() -> Iterator[Path]:
    """Make a cgroup in which the kernel counts CPU time; give its directory."""
    v2 = [one for one in hierarchies() if one.version == 2]
    (hierarchy, *_) = v2 or [one for one in hierarchies() if "cpuacct" in one.controllers]
    name = f"procscope-bench-{secrets.token_hex(4)}"
    with _made(hierarchy, name):
        yield hierarchy.root / name


def cpu_ns(directory: Path) -> int:
    """Return the user and system time that a cgroup of `accounted` has used.

    It is exact: the scheduler adds up what each process ran, those that have ended included.
    """
    with contextlib.suppress(FileNotFoundError):
        return int((directory / "cpuacct.usage").read_text())
    stat = dict(line.split() for line in (directory / "cpu.stat").read_text().splitlines())
    return int(stat["usage_usec"]) * 1000


def processes(directory: Path) -> list[int]:
    """Return the processes of a cgroup."""
    return [int(pid) for pid in (directory / "cgroup.procs").read_text().split()]


@contextlib.contextmanager
def _made(hierarchy: Hierarchy, name: str) -> Iterator[None]:
    directory = hierarchy.root / name
    if hierarchy.version == 2:
        _enable_controllers(hierarchy.root)
    directory.mkdir()
    try:
        if "cpuset" in hierarchy.controllers:
            for file in ("cpuset.cpus", "cpuset.mems"):
                (directory / file).write_text((hierarchy.root / file).read_text())
        yield
    finally:
        _remove(directory)


def _enable_controllers(root: Path) -> None:
    available = (root / "cgroup.controllers").read_text().split()
    enabled = (root / "cgroup.subtree_control").read_text().split()
    for controller in _CONTROLLERS:
        if controller in available and controller not in enabled:
            (root / "cgroup.subtree_control").write_text(f"+{controller}")


def _limit(name: str, limits: Limits) -> None:
    quota_usec = round(limits.cpus * PERIOD_USEC)
    for file, text in (
        ("memory.limit_in_bytes", str(limits.memory_bytes)),
        ("memory.max", str(limits.memory_bytes)),
        ("cpu.cfs_quota_us", str(quota_usec)),
        ("cpu.max", f"{quota_usec} {PERIOD_USEC}"),
    ):
        for hierarchy in hierarchies():
            path = hierarchy.root / name / file
            if path.exists():
                path.write_text(text)


def _remove(directory: Path) -> None:
    """Remove a cgroup; who was in it has been killed, and is gone in a moment."""
    deadline_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            directory.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.01)
        else:
            return
