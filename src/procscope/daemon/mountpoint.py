"""The mountpoint: is it fit to be mounted on, and what stands there."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterable
from enum import Enum

from procscope.daemon.config import DEFAULT_MOUNTPOINT, LXCFS_MOUNTPOINT
from procscope.errors import ProcscopeError
from procscope.fuse import device
from procscope.fuse.device import LXCFS, MountName
from procscope.linux.mountinfo import Mount, read_mountinfo

_log = logging.getLogger(__name__)
_OWN_TYPES = (MountName().fstype, LXCFS.fstype)


class Standing(Enum):
    """What is mounted at a path."""

    NOTHING = "nothing"
    LIVE = "live"
    """A connection that somebody serves."""
    DEAD = "dead"
    """A FUSE connection whose server is gone: ENOTCONN, or ECONNABORTED when it was aborted."""
    FOREIGN = "foreign"


def mount_name(mountpoint: str) -> MountName:
    """Return how to call the mount: by its mountpoint, which tells several daemons' apart.

    Where lxcfs has its, programs look for its name.
    """
    if mountpoint == LXCFS_MOUNTPOINT:
        return LXCFS
    return MountName() if mountpoint == DEFAULT_MOUNTPOINT else MountName(source=mountpoint)


def mounted_at(mountpoint: str, proc: str = "/proc") -> Mount | None:
    """Return the mount that a walk to exactly this path ends at.

    A mount that a later one on a folder above hides is none. Asks no filesystem: a server that
    does not answer must not stop its own supervisor.
    """
    mounts = read_mountinfo(proc)
    found = [mount for mount in mounts if mount.mount_point == mountpoint]
    return next((mount for mount in found if not _is_hidden(mount, mounts)), None)


def _is_hidden(mount: Mount, mounts: Iterable[Mount]) -> bool:
    """Tell whether a mount that `mount` is not on lies over its mount point, or over a parent."""
    by_id = {one.mount_id: one for one in mounts}
    below = {mount.mount_id}
    parent = by_id.get(mount.parent_id)
    while parent is not None and parent.mount_id not in below:
        below.add(parent.mount_id)
        parent = by_id.get(parent.parent_id)
    return any(
        f"{mount.mount_point}/".startswith(f"{other.mount_point.rstrip('/')}/")
        for other in by_id.values()
        if other.mount_id not in below
    )


def standing(mountpoint: str, proc: str = "/proc") -> Standing:
    """Return what is mounted at `mountpoint`."""
    mount = mounted_at(mountpoint, proc)
    if mount is None:
        return Standing.NOTHING
    if mount.fstype not in _OWN_TYPES:
        return Standing.FOREIGN
    try:
        # The root's attributes may be cached; a listing always asks the server.
        os.listdir(mountpoint)
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.ECONNABORTED):
            return Standing.DEAD
    return Standing.LIVE


def prepare(mountpoint: str, proc: str = "/proc") -> None:
    """Make sure that `mountpoint` is an empty directory with nothing mounted on it.

    What a daemon that died left mounted is taken away. Raises ProcscopeError where the directory
    is missing or in use.
    """
    while (found := standing(mountpoint, proc)) is not Standing.NOTHING:
        if found is Standing.LIVE:
            raise ProcscopeError(
                f"{mountpoint} is already served by another daemon",
                hint="stop that one first, or give another mountpoint",
            )
        if found is Standing.FOREIGN:
            raise ProcscopeError(
                f"{mountpoint} has another filesystem mounted on it",
                hint=f"unmount it (`umount {mountpoint}`), or give another mountpoint",
            )
        _log.warning("%s was left mounted by a daemon that died; replacing it", mountpoint)
        device.unmount(mountpoint)
    _make_sure_of_directory(mountpoint)


def _make_sure_of_directory(mountpoint: str) -> None:
    if mountpoint in (DEFAULT_MOUNTPOINT, LXCFS_MOUNTPOINT):
        try:
            os.makedirs(mountpoint, mode=0o755, exist_ok=True)
        except OSError as error:
            raise ProcscopeError(
                f"cannot make {mountpoint}: {error.strerror}", hint="give another mountpoint"
            ) from None
    if not os.path.lexists(mountpoint):
        raise ProcscopeError(
            f"the mountpoint {mountpoint} does not exist", hint=f"`mkdir -p {mountpoint}` first"
        )
    if not os.path.isdir(mountpoint):
        raise ProcscopeError(f"{mountpoint} is not a directory", hint="give an empty directory")
    try:
        names = os.listdir(mountpoint)
    except OSError as error:
        raise ProcscopeError(
            f"cannot look into {mountpoint}: {error.strerror}", hint="give another mountpoint"
        ) from None
    if names:
        raise ProcscopeError(
            f"the mountpoint {mountpoint} is not empty ({names[0]}, …)",
            hint="give an empty directory",
        )
