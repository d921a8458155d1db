"""The mountpoint: is it fit to be mounted on, and what stands there."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
from collections.abc import Iterable, Sequence
from enum import Enum

from procscope.daemon.config import DEFAULT_MOUNTPOINT, LXCFS_MOUNTPOINT
from procscope.errors import ProcscopeError
from procscope.fuse import device
from procscope.fuse.device import LXCFS, MountName
from procscope.inject.forked import Tell, run_forked
from procscope.linux.mountinfo import Mount, read_mountinfo

_log = logging.getLogger(__name__)
_OWN_TYPES = (MountName().fstype, LXCFS.fstype)
_PATIENCE_S = 2.0


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
    found = containing(mountpoint, read_mountinfo(proc))
    return found if found is not None and found.mount_point == mountpoint else None


class MountWatch:
    """Tells when mounts of this mount namespace have changed.

    As proc_pid_mountinfo(5) has it, a change is a condition for poll(2), until the file is polled.
    """

    def __init__(self, proc: str = "/proc") -> None:
        self._fd = os.open(f"{proc}/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLPRI)

    def have_changed(self) -> bool:
        """Tell whether any mount has, since this was asked last."""
        return bool(self._poll.poll(0))

    def close(self) -> None:
        """Look no more."""
        os.close(self._fd)


def containing(path: str, mounts: Sequence[Mount]) -> Mount | None:
    """Return which of these mounts a walk to `path` ends in."""
    ids = {mount.mount_id for mount in mounts}
    # In a chroot there may be several that the walk can begin with.
    first = [mount for mount in mounts if mount.parent_id not in ids - {mount.mount_id}]
    found, below = None, _crossed(first, path)
    while below is not None:
        found = below
        inside = [mount for mount in mounts if mount.parent_id == below.mount_id != mount.mount_id]
        below = _crossed(inside, path)
    return found


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
    return Standing.DEAD if _is_dead(mountpoint) else Standing.LIVE


def _is_dead(mountpoint: str) -> bool:
    """Ask who serves it, in a child process: somebody may hold the connection and not answer."""

    def ask(tell: Tell) -> None:
        try:
            # The root's attributes may be cached; a listing always asks the server.
            os.listdir(mountpoint)
        except OSError as error:
            tell({"errno": error.errno})

    ((_, told),) = run_forked([ask], timeout_s=_PATIENCE_S)
    dead = (errno.ENOTCONN, errno.ECONNABORTED)
    return any(record.get("errno") in dead for record in told.records)


def prepare(mountpoint: str, proc: str = "/proc", *, make: bool = False) -> None:
    """Make sure that `mountpoint` is an empty directory with nothing mounted on it.

    What a daemon that died left mounted is taken away. With `make`, as with those that are used
    unless told, a folder that is missing is made; with `make` empty folders in it are removed as
    well. Raises ProcscopeError where the directory is missing or in use.
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
    if make:
        _remove_empty_folders(mountpoint)
    _make_sure_of_directory(mountpoint, make=make)


def _remove_empty_folders(mountpoint: str) -> None:
    """Remove what containers have left that were started while nothing was served.

    Of a volume whose path is missing on the node, containerd makes a folder there.
    """
    for folder, names, _ in os.walk(mountpoint, topdown=False):
        for name in names:
            with contextlib.suppress(OSError):
                os.rmdir(os.path.join(folder, name))


def _make_sure_of_directory(mountpoint: str, *, make: bool) -> None:
    if make or mountpoint in (DEFAULT_MOUNTPOINT, LXCFS_MOUNTPOINT):
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
