"""The mount namespaces of this host, and which process to enter each by."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from procscope.cgroup.files import CgroupDirectory, CgroupGone, FileBudget
from procscope.cgroup.hierarchy import Hierarchies
from procscope.cgroup.tasks import iterate_tasks
from procscope.containers.container import Container
from procscope.errors import ProcscopeError
from procscope.ids import CgroupPath, Pid
from procscope.linux.mountinfo import Mount, read_mountinfo
from procscope.linux.processes import ProcessIdentity, identity_of
from procscope.linux.procfs import parse_cgroups, parse_nspid
from procscope.values import frozen

_MAX_CONSIDERED = 4096
"""Processes of one container. The first ones are the oldest, as a rule."""


class NoNamespace(ProcscopeError):  # noqa: N818 - says what there is not
    """A container that cannot be entered: it has no process, or the host's mount namespace."""


@frozen
class MountNamespace:
    """A mount namespace, and who is in it."""

    inode: int
    pids: tuple[int, ...]


def host_namespaces(proc: str = "/proc") -> frozenset[int]:
    """Return the mount namespaces that are no container's: of pid 1 and of this process.

    Raises OSError.
    """
    own = _namespace_of("self", proc)
    if own is None:
        raise ProcscopeError(f"cannot read {proc}/self/ns/mnt", hint="is /proc mounted?")
    return frozenset(inode for inode in (own, _namespace_of(1, proc)) if inode is not None)


def find_namespaces(proc: str = "/proc") -> tuple[MountNamespace, ...]:
    """Return every mount namespace that a process is in, but for the host's. Raises OSError."""
    hosts = host_namespaces(proc)
    found: dict[int, list[int]] = {}
    for pid in (int(name) for name in os.listdir(proc) if name.isdecimal()):
        inode = _namespace_of(pid, proc)
        if inode is not None and inode not in hosts:
            found.setdefault(inode, []).append(pid)
    return tuple(MountNamespace(inode, tuple(pids)) for inode, pids in found.items())


def look_into(
    namespace: MountNamespace, proc: str = "/proc"
) -> tuple[ProcessIdentity, tuple[Mount, ...]] | None:
    """Return a process of a namespace and the mounts it sees; None where all have ended.

    One whose root is the namespace's own is preferred: one that has called chroot(2) sees less.
    Then the oldest, its init as a rule: a young one may have ended before it is entered. Pids do
    not tell which that is, once their numbers have begun anew.
    """
    processes = [one for pid in namespace.pids if (one := identity_of(pid, proc)) is not None]
    processes.sort(key=lambda process: (process.start_ticks, process.pid))
    for only_whole in (True, False):
        for process in processes:
            try:
                if only_whole and os.readlink(f"{proc}/{process.pid}/root") != "/":
                    continue
                mounts = read_mountinfo(proc, str(process.pid))
            except OSError:
                continue
            is_still_there = _namespace_of(process.pid, proc) == namespace.inode
            if is_still_there and identity_of(process.pid, proc) == process:
                return process, mounts
    return None


def process_of(
    hierarchies: Hierarchies, container: Container, proc: str = "/proc"
) -> ProcessIdentity:
    """Return the process by which a container is entered: its init, or its oldest one.

    Raises NoNamespace where it has none, or none with a mount namespace of its own.
    """
    hosts = host_namespaces(proc)
    pids = _processes(hierarchies, container)
    own = [pid for pid in pids if _namespace_of(pid, proc) not in (None, *hosts)]
    ranked: list[tuple[bool, int, int, ProcessIdentity]] = []
    for pid in own:
        process, levels = identity_of(pid, proc), _pid_levels(pid, proc)
        if process is not None and levels:
            is_init = len(levels) > 1 and levels[-1] == 1
            ranked.append((not is_init, len(levels), process.start_ticks, process))
    if ranked:
        return min(ranked, key=lambda row: row[:3])[3]
    name = container.id[:12]
    if pids:
        raise NoNamespace(
            f"container {name} has no mount namespace of its own",
            hint="what is mounted for it, all of the host would see",
        )
    raise NoNamespace(f"container {name} has no process", hint="start it first")


def is_member(container: Container, pid: int, proc: str = "/proc") -> bool:
    """Tell whether a process is in a container's cgroups, or below them."""
    try:
        path = f"{proc}/{pid}/cgroup"
        with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            paths = parse_cgroups(file.read())
    except OSError:
        return False
    return any(
        f"{paths.get(controller, '')}/".startswith(f"{path}/")
        for controller, path in _below_root(container.cgroups)
    )


def _processes(hierarchies: Hierarchies, container: Container) -> list[Pid]:
    for controller, path in _below_root(container.cgroups):
        directory = hierarchies.directory(controller, path)
        if directory is None:
            continue
        try:
            cgroup = CgroupDirectory(directory, FileBudget())
            pids = list(iterate_tasks(cgroup, "cgroup.procs", _MAX_CONSIDERED))
        except CgroupGone:
            continue
        if pids:
            return pids
    return []


def _below_root(cgroups: Mapping[str, CgroupPath]) -> Iterable[tuple[str, CgroupPath]]:
    """A container's own cgroups. On a hybrid host it may have none in the v2 hierarchy."""
    return [(controller, path) for controller, path in cgroups.items() if path != "/"]


def _namespace_of(pid: int | str, proc: str) -> int | None:
    try:
        return os.stat(f"{proc}/{pid}/ns/mnt").st_ino
    except OSError:
        return None


def _pid_levels(pid: int, proc: str) -> tuple[Pid, ...]:
    try:
        path = f"{proc}/{pid}/status"
        with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
            return parse_nspid(file.read())
    except OSError:
        return ()
