"""The mount namespace of a container, entered by a process of our own, and changed from within.

Nothing that the container controls is followed: paths are walked without symbolic links, and
everything is done to descriptors, so that what was looked at is what is changed. The host's procfs
is used throughout, by a descriptor that was opened before.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterable

from procscope.errors import ProcscopeError
from procscope.inject.model import Source
from procscope.inject.plan import Place
from procscope.linux import syscalls
from procscope.linux.mountinfo import Mount, parse_mountinfo
from procscope.linux.processes import ProcessIdentity, has_ended
from procscope.values import frozen

_WITHOUT_LINKS = syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_MAGICLINKS
_LOCKED_DOWN = (
    syscalls.MOUNT_ATTR_RDONLY
    | syscalls.MOUNT_ATTR_NOSUID
    | syscalls.MOUNT_ATTR_NODEV
    | syscalls.MOUNT_ATTR_NOEXEC
)
DEAD = (errno.ENOTCONN, errno.ECONNABORTED, errno.ECONNREFUSED)
"""What a FUSE mount answers once its daemon is gone, or was never there."""
_CHUNK_BYTES = 1 << 16
_LOCK_S = 1.0
_LOCK_STEP_S = 0.005


def clone(source: Source, root: str) -> int:
    """Return a detached copy of the mount of `root` in the daemon's files, locked down.

    Called in the mount namespace of the source. `root` may come from the mount table of a
    container, and the files have links that lead out of the mount: none is followed. Raises
    OSError, ENOENT where the daemon does not serve such a file.
    """
    top = os.open(source.mountpoint, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        how = _WITHOUT_LINKS | syscalls.RESOLVE_BENEATH
        file = syscalls.openat2(top, root.strip("/") or ".", os.O_PATH, how)
        try:
            flags = syscalls.AT_EMPTY_PATH | syscalls.OPEN_TREE_CLONE
            tree = syscalls.open_tree(file, "", flags)
        finally:
            os.close(file)
    finally:
        os.close(top)
    syscalls.mount_setattr(tree, _LOCKED_DOWN, syscalls.MS_PRIVATE)
    return tree


@frozen
class Spot:
    """One place of the namespace, held open."""

    fd: int
    """An O_PATH descriptor of what a walk to the path ends at."""
    place: Place
    inner: tuple[Mount, ...]
    """The mounts on what is below it."""


class OutsideRoot(OSError):  # noqa: N818 - says where, not that someone erred
    """A place in a mount that the mount table does not show.

    The root is a folder of that mount (chroot), or the mount was taken away in between.
    """


class Inside:
    """The mount namespace that this process is in, seen from `root_fd`."""

    def __init__(self, proc_fd: int, root_fd: int, namespace: int) -> None:
        """`proc_fd` is the host's /proc, `namespace` its own inode number."""
        self.proc_fd = proc_fd
        self.root_fd = root_fd
        self.namespace = namespace
        self._dead: dict[str, bool] = {}
        """What is known of connections, by device: one that is dead stays so."""

    def mounts(self) -> tuple[Mount, ...]:
        """Return the mounts below the root. Raises OSError."""
        return tuple(parse_mountinfo(self._read("self/mountinfo")))

    def look(self, path: str, taken_away: int = 0, stuck: bool = False) -> Spot:
        """Open the place `path` and find the mount that it is in.

        Raises OSError: ENOENT or ENOTDIR where there is no such place, ELOOP where a symbolic link
        is on the way; OutsideRoot.
        """
        fd = self._walk(path)
        try:
            mounts = {mount.mount_id: mount for mount in self.mounts()}
            at = mounts.get(self._mount_id(fd))
            if at is None:
                raise OutsideRoot(errno.ESTALE, "it is in no mount below the root", path)
        except BaseException:
            os.close(fd)
            raise
        inner = tuple(
            mount
            for mount in mounts.values()
            if mount.parent_id == at.mount_id and mount.mount_point.startswith(f"{path}/")
        )
        return Spot(fd, Place(at, mounts.get(at.parent_id), taken_away, stuck), inner)

    def is_dead(self, spot: Spot) -> bool:
        """Tell whether nobody serves the FUSE mount at a place. Waits for its daemon's answer."""
        device = spot.place.at.device
        if device not in self._dead:
            try:
                # Unlike open(2), statfs(2) asks the daemon every time (fuse_statfs() in
                # fs/fuse/inode.c), and works on an O_PATH descriptor.
                os.fstatvfs(spot.fd)
                self._dead[device] = False
            except OSError as error:
                self._dead[device] = error.errno in DEAD
        return self._dead[device]

    def take_away(self, spot: Spot) -> None:
        """Detach the mount that was looked at, and no other. Raises OSError."""
        # The link leads to what the descriptor is open at, in whichever namespace it is walked.
        os.fchdir(self.proc_fd)
        try:
            syscalls.umount2(f"self/fd/{spot.fd}", syscalls.MNT_DETACH)
        finally:
            os.fchdir(self.root_fd)

    def copies_of(self, mounts: Iterable[Mount]) -> list[tuple[str, int]]:
        """Return (mount point, detached copy) of the mounts that a walk still comes to."""
        copies = []
        for mount in mounts:
            try:
                fd = self._walk(mount.mount_point)
            except OSError:
                continue
            try:
                if self._mount_id(fd) == mount.mount_id:
                    flags = syscalls.AT_EMPTY_PATH | syscalls.AT_RECURSIVE
                    tree = syscalls.open_tree(fd, "", flags | syscalls.OPEN_TREE_CLONE)
                    copies.append((mount.mount_point, tree))
            finally:
                os.close(fd)
        return copies

    def put_back(self, copies: Iterable[tuple[str, int]]) -> None:
        """Attach copies at their mount points, where these are there and free. Raises OSError."""
        for mount_point, tree in copies:
            try:
                fd = self._walk(mount_point)
            except (FileNotFoundError, NotADirectoryError):
                continue
            try:
                mount_id = self._mount_id(fd)
                taken = [
                    mount.mount_id for mount in self.mounts() if mount.mount_point == mount_point
                ]
                if mount_id not in taken:
                    syscalls.move_mount(tree, fd)
            finally:
                os.close(fd)

    def _walk(self, path: str) -> int:
        how = _WITHOUT_LINKS | syscalls.RESOLVE_IN_ROOT
        return syscalls.openat2(self.root_fd, path.strip("/") or ".", os.O_PATH, how)

    def _mount_id(self, fd: int) -> int:
        for line in self._read(f"self/fdinfo/{fd}").split("\n"):
            key, _, value = line.partition(":")
            if key == "mnt_id" and value.strip().isdecimal():
                return int(value)
        return -1

    def _read(self, path: str) -> str:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.proc_fd)
        try:
            pieces = []
            while piece := os.read(fd, _CHUNK_BYTES):
                pieces.append(piece)
        finally:
            os.close(fd)
        return b"".join(pieces).decode("utf-8", "surrogateescape")


def enter(
    process: ProcessIdentity,
    pidfd: int,
    proc_fd: int,
    hosts: frozenset[int],
    *,
    own_root: bool,
) -> Inside:
    """Enter the mount namespace of a process that `pidfd` was opened for.

    `hosts` are the namespaces that are never entered. `own_root`: see the namespace from the root
    of the process, else from its own. It is locked until this process ends. Raises ProcscopeError
    or OSError; the caller ends then.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC
    try:
        namespace_fd = os.open(f"{process.pid}/ns/mnt", flags, dir_fd=proc_fd)
        root_flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        process_root = os.open(f"{process.pid}/root", root_flags, dir_fd=proc_fd)
    except FileNotFoundError:
        raise ended(process) from None
    except PermissionError as error:
        raise ProcscopeError(
            f"process {process.pid} cannot be entered: {error.strerror}",
            hint="a security module protects it",
        ) from None
    # As long as it has not ended, the pid is its own, and what was opened is the process's.
    if has_ended(pidfd):
        raise ended(process)
    namespace = os.fstat(namespace_fd).st_ino
    if namespace in hosts:
        raise ProcscopeError(
            f"process {process.pid} has no mount namespace of its own",
            hint="on the host's, every process would see one container's numbers",
        )
    _lock(namespace_fd)
    syscalls.setns(namespace_fd, syscalls.CLONE_NEWNS)
    if own_root:
        os.fchdir(process_root)
        os.chroot(".")
    os.close(process_root)
    root_fd = os.open(".", root_flags)
    os.fchdir(root_fd)
    return Inside(proc_fd, root_fd, namespace)


def _lock(namespace_fd: int) -> None:
    """Keep others of us out of the namespace for as long as the descriptor is open.

    Two that find the same place free would both mount on it. Raises ProcscopeError where somebody,
    such as the container itself, does not let go of it.
    """
    deadline_s = time.monotonic() + _LOCK_S
    while True:
        try:
            fcntl.flock(namespace_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                raise ProcscopeError(
                    "another process has locked its mount namespace", hint="try again"
                ) from None
            time.sleep(_LOCK_STEP_S)
        else:
            return


def ended(process: ProcessIdentity) -> ProcscopeError:
    """Return the error of a process that is not there any more."""
    return ProcscopeError(f"process {process.pid} has ended", hint="its container may have stopped")
