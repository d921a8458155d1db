"""The cgroup of one sandbox, `procscope/NAME` in every hierarchy that limits or counts something.

Files and values: the kernel's `Documentation/admin-guide/cgroup-v1/` and `cgroup-v2.rst`.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping

from procscope.cgroup.hierarchy import Hierarchies
from procscope.errors import ExitCode, ProcscopeError
from procscope.ids import CgroupPath
from procscope.linux.cpulist import format_cpulist
from procscope.linux.procfs import UNIFIED
from procscope.sandbox import cgroupfs
from procscope.sandbox.limits import write_limits
from procscope.sandbox.placement import place
from procscope.sandbox.spec import SandboxSpec
from procscope.values import frozen, replace

PARENT = "procscope"
"""The cgroup that holds all sandboxes; the readers' identity is found by this name."""

CONTROLLERS = ("memory", "cpu", "cpuacct", "cpuset", "blkio", "io", "pids", "hugetlb")
"""What a view reads or a limit needs, by the names of v1 and v2."""

ROOT = CgroupPath("/")
_CREATE_ATTEMPTS = 50


@frozen
class SandboxCgroup:
    """A cgroup that this process has made and locked."""

    name: str
    directories: tuple[str, ...]
    """The cgroup's directory in each hierarchy, the locked one first."""
    unlimited: tuple[str, ...]
    """Why a limit that was asked for is not in force, one line each."""
    _memory: str | None
    _lock: int

    def add(self, pid: int) -> None:
        """Move a process into the cgroup. Raises ProcscopeError."""
        for directory in self.directories:
            try:
                cgroupfs.write(directory, "cgroup.procs", str(pid))
            except OSError as error:
                raise _failed(f"cannot enter the cgroup {directory}", error) from error

    def oom_kills(self) -> int:
        """Return how many processes the kernel killed because the memory limit was reached."""
        for file in ("memory.events", "memory.oom_control"):
            try:
                lines = cgroupfs.read(self._memory or "", file).splitlines()
            except OSError:
                continue
            fields = dict(line.split(" ", 1) for line in lines if " " in line)
            count = fields.get("oom_kill", "0")
            return int(count) if count.isdigit() else 0
        return 0

    def remove(self) -> None:
        """Kill what is left in the cgroup and remove it everywhere. Raises ProcscopeError."""
        try:
            _remove_all(self.directories)
        except OSError as error:
            raise _failed(f"cannot remove the cgroup {self.directories[0]}", error) from error
        finally:
            os.close(self._lock)


@frozen
class CgroupSite:
    """Where sandboxes' cgroups are made."""

    hierarchies: Hierarchies
    base: CgroupPath = ROOT
    """The cgroup below which `procscope` is made: the root, or a user's delegated cgroup."""
    unified_only: bool = False
    """Only the v2 hierarchy is the caller's to write."""

    def create(self, spec: SandboxSpec) -> SandboxCgroup:
        """Make the cgroup, lock it and write its limits. What dead runs have left is removed.

        Raises ProcscopeError where the name is in use, or there is no cgroup to be had.
        """
        parents = self._parents()
        if not parents:
            raise ProcscopeError(
                "no cgroup hierarchy is mounted",
                hint="mount cgroup2 on /sys/fs/cgroup",
                exit_code=ExitCode.RUN_FAILED,
            )
        names = tuple(dict.fromkeys(parents.values()))
        try:
            remove_stale(names)
            return self._create(spec, parents)
        except OSError as error:
            raise _failed(f"cannot make the cgroup {names[0]}/{spec.name}", error) from error

    def _create(self, spec: SandboxSpec, parents: Mapping[str, str]) -> SandboxCgroup:
        names = tuple(dict.fromkeys(parents.values()))
        lock = self._take_patiently(spec.name, names)
        directories = {
            controller: os.path.join(parent, spec.name) for controller, parent in parents.items()
        }
        cgroup = SandboxCgroup(
            name=spec.name,
            directories=tuple(dict.fromkeys(directories.values())),
            unlimited=(),
            _memory=directories.get("memory"),
            _lock=lock,
        )
        try:
            _inherit_cpuset(directories.get("cpuset"))
            _place(spec, parents.get("cpuset"))
            return replace(cgroup, unlimited=tuple(write_limits(spec, directories)))
        except BaseException:
            cgroup.remove()
            raise

    def _take_patiently(self, name: str, parents: tuple[str, ...]) -> int:
        """Take the cgroup, again where the end of another run has removed the empty parent."""
        for _ in range(_CREATE_ATTEMPTS):
            try:
                return self._take(name, parents)
            except FileNotFoundError:
                continue
        return self._take(name, parents)

    def _take(self, name: str, parents: tuple[str, ...]) -> int:
        """Return the lock of a new, empty cgroup that is there in every hierarchy."""
        for parent in parents:
            os.makedirs(parent, exist_ok=True)
        self._enable_controllers()
        _inherit_cpuset(self._directory("cpuset", PARENT))
        directories = tuple(os.path.join(parent, name) for parent in parents)
        if os.path.isdir(directories[0]):
            _remove_unlocked(directories)
        lock = cgroupfs.take(directories[0])
        if lock is None:
            raise _in_use(name)
        try:
            for directory in directories[1:]:
                # Without the lock nobody is in it: left by a run that died while it began or ended.
                cgroupfs.remove(directory)
                os.mkdir(directory)
        except BaseException:
            os.close(lock)
            raise
        return lock

    def _parents(self) -> dict[str, str]:
        """Return controller -> directory of `procscope`, the v2 hierarchy as UNIFIED."""
        found: dict[str, str] = {}
        for controller in (UNIFIED, *CONTROLLERS):
            directory = self._directory(controller, PARENT)
            is_ours = not self.unified_only or self.hierarchies.version(controller) == 2
            if directory is not None and is_ours:
                found[controller] = directory
        return found

    def _directory(self, controller: str, *names: str) -> str | None:
        path = CgroupPath(os.path.join(self.base, *names))
        return self.hierarchies.directory(controller, path)

    def _enable_controllers(self) -> None:
        """Enable what v2 has to offer from the base down; one that cannot be is left out.

        Each is written alone: the kernel refuses a list as a whole for one name in it. That
        `procscope` itself enables them keeps systemd from taking them away from the root again.
        """
        for names in ((), (PARENT,)):
            directory = self._directory(UNIFIED, *names)
            if directory is None:
                return
            available = cgroupfs.read(directory, "cgroup.controllers").split()
            enabled = cgroupfs.read(directory, "cgroup.subtree_control").split()
            for controller in CONTROLLERS:
                if controller in available and controller not in enabled:
                    _try_enable(directory, controller)


def remove_stale(parents: tuple[str, ...]) -> None:
    """Remove the empty cgroups of runs whose launcher is dead; the parents' first one has locks."""
    try:
        names = [entry.name for entry in os.scandir(parents[0]) if entry.is_dir()]
    except FileNotFoundError:
        return
    for name in names:
        directories = tuple(os.path.join(parent, name) for parent in parents)
        if not any(cgroupfs.processes(directory) for directory in directories):
            _remove_unlocked(directories)


def _remove_unlocked(directories: tuple[str, ...]) -> None:
    """Remove a dead run's cgroup; one whose launcher lives is left alone."""
    lock = cgroupfs.lock(directories[0])
    if lock is None:
        return
    try:
        _remove_cgroups(directories)
    finally:
        os.close(lock)


def _remove_all(directories: tuple[str, ...]) -> None:
    _remove_cgroups(directories)
    for directory in directories:
        cgroupfs.remove_if_empty(os.path.dirname(directory))


def _remove_cgroups(directories: tuple[str, ...]) -> None:
    """Remove a cgroup in every hierarchy, last where the lock is."""
    for directory in reversed(directories):
        cgroupfs.remove(directory)


def _inherit_cpuset(directory: str | None) -> None:
    """Fill a v1 cpuset from its parent: a new one is empty, and no process may enter it then."""
    if directory is None or not cgroupfs.exists(directory, "cpuset.effective_cpus"):
        return
    parent = os.path.dirname(directory)
    for file in ("cpuset.mems", "cpuset.cpus"):
        if not cgroupfs.read(directory, file):
            cgroupfs.write(directory, file, cgroupfs.read(parent, file))


def _place(spec: SandboxSpec, parent: str | None) -> None:
    """Choose CPUs for a quota where nobody else has; without a cpuset there are none to choose."""
    if parent is None or spec.cpu_quota_usec is None or spec.cpuset is not None:
        return
    cpus = place(spec.cpu_quota_usec, parent, spec.name)
    directory = os.path.join(parent, spec.name)
    if cpus is not None and cgroupfs.exists(directory, "cpuset.cpus"):
        with contextlib.suppress(OSError):
            cgroupfs.write(directory, "cpuset.cpus", format_cpulist(cpus))


def _try_enable(directory: str, controller: str) -> None:
    """Enable a v2 controller for the children; its limit's file will be missing where it fails."""
    try:
        cgroupfs.write(directory, "cgroup.subtree_control", f"+{controller}")
    except OSError:
        return


def _in_use(name: str) -> ProcscopeError:
    return ProcscopeError(
        f"the name {name!r} is in use by a running sandbox",
        hint="choose another --name, or end that one first",
        exit_code=ExitCode.RUN_FAILED,
    )


def _failed(what: str, error: OSError) -> ProcscopeError:
    hints = {
        errno.EACCES: "root, or a delegated cgroup, is needed",
        errno.EPERM: "root, or a delegated cgroup, is needed",
        errno.EROFS: "the cgroup filesystem is mounted read-only here",
    }
    return ProcscopeError(
        f"{what}: {cgroupfs.reason(error)}",
        hint=hints.get(error.errno or 0, ""),
        exit_code=ExitCode.RUN_FAILED,
    )
