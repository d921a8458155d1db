"""What is to be mounted in a container, from where, and what became of it."""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum

from procscope.linux.mountinfo import Mount
from procscope.linux.processes import ProcessIdentity
from procscope.values import frozen

OWN_TYPE = "fuse.procscope"
LXCFS_TYPE = "fuse.lxcfs"
_FOLDERS = {"proc": "proc", "sys": "sysfs"}
"""The first folder of a target, and the filesystem of the kernel that must be mounted there."""


@frozen
class Source:
    """The daemon whose files are attached."""

    mountpoint: str
    """Where it serves, in this process's mount namespace."""
    device: str
    """`major:minor` of its superblock, as in mountinfo: that of the live connection."""
    also_lxcfs: bool = False
    """Whether it calls itself lxcfs, so that dead mounts of that name are its own."""
    name: str | None = None
    """What its mounts are called in mountinfo; None takes any dead view for one of its own,
    whichever daemon served it."""
    pinned_device: str = ""
    """As `device`, of its pinned tree; empty where it has none."""

    @property
    def devices(self) -> tuple[str, ...]:
        """Both."""
        return (self.device, self.pinned_device) if self.pinned_device else (self.device,)

    def owns(self, mount: Mount) -> bool:
        """Tell whether a mount is of this daemon, or of an earlier one that it replaces.

        Without `name`, that it is of another one that lives can only be found out by asking.
        """
        if mount.fstype != OWN_TYPE and not (self.also_lxcfs and mount.fstype == LXCFS_TYPE):
            return False
        return self.name in (None, mount.source) or mount.device in self.devices

    def is_live(self, mount: Mount) -> bool:
        """Tell whether a mount is of a connection that this daemon serves now."""
        return self.owns(mount) and mount.device in self.devices


class Over(Enum):
    """What a view may be mounted over."""

    KERNEL_FILE = "kernel file"
    """Only the file of the same name that procfs or sysfs has there."""
    DEAD_VIEW = "dead view"
    """Only where a view is that nobody serves any more, which is taken away first."""
    ANYTHING = "anything"
    """Whatever lies there, unless something is mounted at exactly this place."""


@frozen
class Wanted:
    """One view at one place of a container."""

    root: str
    """The file or folder in the daemon's mount, `/proc/meminfo`."""
    mount_point: str
    """Where it is to be, as seen from the root of the container."""
    over: Over = Over.KERNEL_FILE

    @property
    def kernel_type(self) -> str:
        """The type of the filesystem that has the kernel's own file; empty where none has."""
        return _FOLDERS.get(self.mount_point.split("/")[1], "")

    @property
    def kernel_path(self) -> str:
        """The path of the kernel's own file in that filesystem."""
        return "/" + self.mount_point.split("/", 2)[-1]


def wanted_files(files: Collection[str]) -> tuple[Wanted, ...]:
    """Return the views `files` (`proc/meminfo`), each at the place of the kernel's own file."""
    return tuple(Wanted(root=f"/{file}", mount_point=f"/{file}") for file in files)


class Outcome(Enum):
    """What became of one view at one place."""

    ATTACHED = "attached"
    ALREADY = "already attached"
    REPLACED = "attached in place of a dead one"
    TAKEN_AWAY = "taken away"
    LEFT_ALONE = "left alone"
    NOT_THERE = "not there"
    FAILED = "failed"


@frozen
class FileResult:
    """What became of one view at one place."""

    root: str
    mount_point: str
    outcome: Outcome
    detail: str = ""
    """Why, in words; empty where the outcome says it all."""


@frozen
class NamespaceResult:
    """What was done in one mount namespace."""

    process: ProcessIdentity
    """The process by which the namespace was entered."""
    namespace: int
    """The namespace's inode number, 0 where it was not entered."""
    files: tuple[FileResult, ...] = ()
    error: str = ""
    """Why the namespace as a whole was not worked on, or not to the end."""

    @property
    def failed(self) -> bool:
        """Whether anything went wrong."""
        return bool(self.error) or any(file.outcome is Outcome.FAILED for file in self.files)


@frozen
class Detached:
    """What was taken away from one mount namespace, enough to attach it again."""

    process: ProcessIdentity
    namespace: int
    mounts: tuple[tuple[str, str], ...]
    """(path in the daemon's mount, mount point), as they are to be attached again."""
