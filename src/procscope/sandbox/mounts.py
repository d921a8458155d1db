"""The mounts of a sandbox as a plan: objects that say what they do, and do it.

The plan is made inside the sandbox's cgroup: a views mount may choose a view by who looks it up.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Protocol

from procscope.linux import syscalls
from procscope.tree.sources import Pinned
from procscope.values import frozen

_LOCKED_DOWN = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
_CPU_FOLDER = "devices/system/cpu"


class MountStep(Protocol):
    """One step of a plan."""

    def describe(self) -> str:
        """Return the step as a line for a person."""
        ...

    def execute(self) -> None:
        """Do it. Raises OSError."""


@frozen
class ReceiveOnly:
    """Let the host's later mounts come in, and none of ours go out."""

    def describe(self) -> str:
        """Return the step as a line for a person."""
        return "make all mounts slaves of the host's"

    def execute(self) -> None:
        """Do it. Raises OSError."""
        syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)


@frozen
class MountProc:
    """Mount a proc of the caller's PID namespace."""

    target: str

    def describe(self) -> str:
        """Return the step as a line for a person."""
        return f"mount a new proc on {self.target}"

    def execute(self) -> None:
        """Do it. Raises OSError."""
        syscalls.mount("proc", self.target, "proc", _LOCKED_DOWN)


@frozen
class BindReadOnly:
    """Bind a file or a folder over another, read-only, nosuid, nodev, noexec."""

    source: str
    target: str

    def describe(self) -> str:
        """Return the step as a line for a person."""
        return f"bind {self.source} on {self.target} (ro,nosuid,nodev,noexec)"

    def execute(self) -> None:
        """Do it. Raises OSError."""
        syscalls.mount(self.source, self.target, None, syscalls.MS_BIND)
        # mount(2) ignores other flags while it binds; a second call sets them.
        flags = syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_RDONLY | _LOCKED_DOWN
        syscalls.mount(None, self.target, None, flags)


def namespace_plan(proc: str = "/proc") -> tuple[MountStep, ...]:
    """Return the steps that a new mount and PID namespace needs before any view."""
    return (ReceiveOnly(), MountProc(proc))


def view_plan(
    views: str, proc: str = "/proc", sys: str = "/sys", *, pinned: Pinned = Pinned.NONE
) -> tuple[MountStep, ...]:
    """Return the steps that put the views at mount point `views` over `proc` and `sys`.

    `pinned` says which of them are taken from the pinned tree, as far as that has them.
    A file that the kernel does not have, such as `pressure/cpu` without PSI, gets no view: nothing
    may appear that a machine of this kernel would not show. Raises OSError.
    """
    files = [
        BindReadOnly(_source(views, f"proc/{name}", pinned), os.path.join(proc, name))
        for name in _files_below(os.path.join(views, "proc"))
        if os.path.isfile(os.path.join(proc, name))
    ]
    source, target = _source(views, f"sys/{_CPU_FOLDER}", pinned), os.path.join(sys, _CPU_FOLDER)
    folders = [BindReadOnly(source, target)] if os.path.isdir(source) else []
    return (*files, *folders)


def execute(plan: Sequence[MountStep]) -> None:
    """Do the steps of a plan in their order. Raises OSError that says which step failed."""
    for step in plan:
        try:
            step.execute()
        except OSError as error:
            raise OSError(error.errno, f"cannot {step.describe()}: {error.strerror}") from error


def _source(views: str, file: str, pinned: Pinned) -> str:
    path = os.path.join(views, pinned.source(file))
    return path if os.path.exists(path) else os.path.join(views, file)


def _files_below(folder: str) -> Iterator[str]:
    """Yield the paths below `folder` of all regular files, sorted."""

    def fail(error: OSError) -> None:
        raise error

    for parent, subfolders, names in os.walk(folder, onerror=fail):
        subfolders.sort()
        for name in sorted(names):
            yield os.path.relpath(os.path.join(parent, name), folder)
