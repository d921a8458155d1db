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
    ids = {mount.mount_id for mount in mounts}
    # In a chroot there may be several that the walk can begin with.
    first = [mount for mount in mounts if mount.parent_id not in ids - {mount.mount_id}]
    found, below = None, _crossed(first, mountpoint)
    while below is not None:
        found = below
        inside = [mount for mount in mounts if mount.parent_id == below.mount_id != mount.mount_id]
        below = _crossed(inside, mountpoint)
    return found if found is not None and found.mount_point == mountpoint else None


def _crossed(mounts: Iterable[Mount], path: str) -> Mount | None:
    """Return which of these mounts a walk to `path` comes to first; None where it meets none."""
    on_the_way = [
        mount
        for mount in mounts
        if f"{path.rstrip('/')}/".startswith(f"{mount.mount_point.rstrip('/')}/")
    ]
    return min(on_the_way, key=lambda mount: len(mount.mount_point), default=None)


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
