"""What a test may leave behind by mistake: FUSE mounts, child processes, cgroups, descriptors."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.integration.waiting import eventually
from tests.levels import cgroup_mounts, unescape

# Exits, unmounts and RELEASE are asynchronous. This is a bound for them, not a wait: the check
# ends as soon as nothing is left.
SETTLE_S = 2.0


# Everything that is started from here inherits this, also what outlives its parent.
MARK = f"PROCSCOPE_TEST_SESSION={os.getpid()}"


@dataclass(frozen=True, slots=True)
class Process:
    """A living process that the tests started."""

    pid: int
    parent: int
    comm: str


@dataclass(frozen=True, slots=True)
class Traces:
    """What there is at one moment, each thing by a text that a reader of a report understands."""

    mounts: frozenset[str]
    processes: Mapping[int, Process]
    cgroups: frozenset[str]
    descriptors: tuple[str, ...]

    def left_since(self, before: Traces) -> list[str]:
        """What is here now and was not there before, one line each."""
        found = [f"mount {each}" for each in sorted(self.mounts - before.mounts)]
        found += [f"process {each.pid} {each.comm}" for each in self._new_processes(before)]
        found += [f"cgroup {each}" for each in sorted(self.cgroups - before.cgroups)]
        if len(self.descriptors) > len(before.descriptors):
            new = sorted(set(self.descriptors) - set(before.descriptors))
            found += [f"descriptor {each}" for each in new]
        return found

    def _new_processes(self, before: Traces) -> Iterator[Process]:
        """Without the new children of an older one: a shared daemon may replace its workers."""
        for process in self.processes.values():
            oldest = process
            while oldest.pid not in before.processes and oldest.parent in self.processes:
                oldest = self.processes[oldest.parent]
            if oldest.pid not in before.processes:
                yield process


def mark_descendants() -> None:
    """Make every process that is started from now on known as one of this session."""
    name, _, value = MARK.partition("=")
    os.environ[name] = value


def traces() -> Traces:
    """Take stock of this process and of the machine."""
    return Traces(
        mounts=frozenset(_fuse_mounts()),
        processes={process.pid: process for process in _started_here()},
        cgroups=frozenset(_procscope_cgroups()),
        descriptors=tuple(_descriptors()),
    )


def left_since(before: Traces) -> list[str]:
    """What has been left since then and does not go away by itself."""
    gc.collect()
    left: list[str] = []

    def nothing_left() -> bool:
        left[:] = traces().left_since(before)
        return not left

    with contextlib.suppress(AssertionError):
        eventually(nothing_left, SETTLE_S)
    return left


def _fuse_mounts() -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        kind = after.split()[0]
        if kind == "fuse" or kind.startswith("fuse."):
            fields = before.split()
            yield f"{fields[0]} {kind} on {unescape(fields[4])}"


def _started_here() -> Iterator[Process]:
    """The living descendants of this process, and those that an exited parent left to init."""
    running = {process.pid: process for process in _running()}
    for process in running.values():
        ancestor = process
        while ancestor.parent != os.getpid() and ancestor.parent in running:
            ancestor = running[ancestor.parent]
        if ancestor.parent == os.getpid() or _is_marked(process.pid):
            yield process


def _running() -> Iterator[Process]:
    for entry in os.listdir("/proc"):
        if not entry.isdecimal():
            continue
        try:
            text = Path(f"/proc/{entry}/stat").read_text(errors="surrogateescape")
        except OSError:  # gone in between
            continue
        # A comm may hold spaces and parentheses: what follows it starts after the last one.
        head, _, rest = text.rpartition(")")
        state, parent = rest.split()[:2]
        if state not in ("Z", "X"):
            yield Process(int(entry), int(parent), head.partition(" ")[2] + ")")


def _is_marked(pid: int) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # gone in between, or somebody else's
        return False
    return MARK.encode() in environment.split(b"\0")


def _procscope_cgroups() -> Iterator[str]:
    for mount in cgroup_mounts():
        top = mount.mountpoint / "procscope"
        yield from (str(path) for path in top.glob("**/") if path != top)


def _descriptors() -> Iterator[str]:
    for name in os.listdir("/proc/self/fd"):
        try:
            yield f"{name} -> {os.readlink(f'/proc/self/fd/{name}')}"
        except FileNotFoundError:  # the one that listed the directory
            continue
