"""/dev/fuse: opening it, mounting what is behind it, and the first exchange on it.

Whatever the system refuses becomes a ProcscopeError that says what to do.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from procscope.errors import ProcscopeError
from procscope.fuse import wire
from procscope.fuse.negotiation import WANTED, ConnectionState, negotiate
from procscope.fuse.wire import InitFlag
from procscope.linux import syscalls
from procscope.values import frozen

DEFAULT_DEVICE: Final = "/dev/fuse"
_INIT_BUFFER_BYTES: Final = 16 * 1024
_DIRECTORY_ROOTMODE: Final = "40755"

# Not MS_RDONLY: on such a mount the kernel does not let a read make the inode's attributes stale
# (fuse_invalidate_atime() in fs/fuse/dir.c), and fstat(2) would tell the size that another reader's
# file had. The protocol layer refuses every change itself.
_MOUNT_FLAGS: Final = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC

_DEVICE_HINTS: Final = {
    errno.ENOENT: "load the module with `modprobe fuse`; "
    "a container needs it passed in, `docker run --device /dev/fuse`",
    errno.ENODEV: "load the module with `modprobe fuse`",
    errno.ENXIO: "load the module with `modprobe fuse`",
    errno.EACCES: "run as root, or let this user read and write it",
    errno.EPERM: "the device cgroup forbids it; "
    "a container needs it passed in, `docker run --device /dev/fuse`",
}

_MOUNT_HINTS: Final = {
    errno.EPERM: "run as root; a container needs the capability CAP_SYS_ADMIN",
    errno.EACCES: "run as root, and see whether SELinux or AppArmor forbids it",
    errno.ENODEV: "this kernel has no FUSE; load it with `modprobe fuse`",
    errno.ENOENT: "create the directory first",
    errno.ENOTDIR: "choose a directory",
    errno.ENOTCONN: "a mount left by an earlier crash is in the way, `umount -l` it",
    errno.EBUSY: "something uses the mountpoint; unmount it or choose another directory",
    errno.EINVAL: "the kernel does not take the mount options; "
    "see its log with `dmesg`, and leave the SELinux context out where SELinux is off",
    errno.ELOOP: "its path has too many symbolic links",
    errno.ENAMETOOLONG: "choose a shorter path",
}


@frozen
class MountName:
    """How the mount calls itself in mountinfo and df(1)."""

    fstype: str = "fuse.procscope"
    source: str = "procscope"


LXCFS: Final = MountName("fuse.lxcfs", "lxcfs")
"""The name by which programs recognise the views of lxcfs (htop and Tailscale look for it)."""


def open_device(path: str = DEFAULT_DEVICE) -> int:
    """A new descriptor of the FUSE device, closed on exec, blocking."""
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise _refused(f"cannot open {path}", error, _DEVICE_HINTS) from None


def mount_options(
    fd: int, *, uid: int, gid: int, context: str | None = None, idmapped: bool = False
) -> str:
    """The data argument of mount(2), as fuse_parse_param() in fs/fuse/inode.c reads it.

    `context` is an SELinux label for every file, such as
    `system_u:object_r:container_file_t:s0`. It is quoted, because it may contain commas; one that
    cannot be is a ProcscopeError. `idmapped` is for `exchange_init`: only where the kernel itself
    checks permissions can bind mounts be idmapped, and for that it asks for a view's attributes at
    each open(2).
    """
    options = [
        f"fd={fd}",
        f"rootmode={_DIRECTORY_ROOTMODE}",
        f"user_id={uid}",
        f"group_id={gid}",
        "allow_other",
    ]
    if idmapped:
        options.append("default_permissions")
    if context is not None:
        if not context.isprintable() or '"' in context:
            raise ProcscopeError(f"{context!r} is no SELinux context")
        options.append(f'context="{context}"')
    return ",".join(options)


def mount(
    fd: int,
    target: str,
    name: MountName | None = None,
    *,
    context: str | None = None,
    idmapped: bool = False,
    read_only: bool = False,
) -> None:
    """Mount the connection of `fd` on the directory `target`.

    INIT is the first request on it afterwards: `exchange_init`, with the same `idmapped`.
    `read_only` has the kernel itself refuse to open anything for writing.
    """
    flags = _MOUNT_FLAGS | (syscalls.MS_RDONLY if read_only else 0)
    name = name or MountName()
    uid, gid = os.geteuid(), os.getegid()
    options = mount_options(fd, uid=uid, gid=gid, context=context, idmapped=idmapped)
    try:
        syscalls.mount(name.source, target, name.fstype, flags, options)
    except OSError as error:
        raise _refused(f"cannot mount on {target}", error, _MOUNT_HINTS) from None


def exchange_init(fd: int, wanted: InitFlag = WANTED, *, idmapped: bool = False) -> ConnectionState:
    """Read INIT, answer it, and return what was agreed. Blocks until the kernel has sent it.

    With `idmapped`, bind mounts of it may be idmapped where the kernel can do that.
    """
    while True:
        try:
            reply, state = negotiate(os.read(fd, _INIT_BUFFER_BYTES), wanted, idmapped=idmapped)
            os.write(fd, reply)
        except OSError as error:
            raise _refused("the FUSE connection failed at INIT", error, {}) from None
        if state is not None:
            return state


def ask_for_resend(fd: int) -> None:
    """Have the kernel send every request again that was read and not answered (Linux 6.9).

    Only where FUSE_HAS_RESEND was agreed. Raises OSError.
    """
    # fuse_notify() in fs/fuse/dev.c: a reply to no request, its error is the code.
    header = wire.fuse_out_header.pack(
        len=wire.fuse_out_header.size, error=wire.FUSE_NOTIFY_RESEND, unique=0
    )
    os.write(fd, header)


def unmount(target: str) -> bool:
    """Take the mount at `target` away; False where nothing is mounted there.

    A mount that is in use is detached: it is gone from the tree at once, and from the kernel when
    its last user has gone.
    """
    try:
        if _umounted(target, 0):
            return True
        return _umounted(target, syscalls.MNT_DETACH)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return False
        raise _refused(f"cannot unmount {target}", error, {errno.EPERM: "run as root"}) from None


def _umounted(target: str, flags: int) -> bool:
    """Whether umount2(2) went through; False where the mount is in use."""
    try:
        syscalls.umount2(target, flags)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def _refused(what: str, error: OSError, hints: dict[int, str]) -> ProcscopeError:
    number = error.errno or 0
    reason = os.strerror(number) if number else str(error)
    return ProcscopeError(f"{what}: {reason}", hint=hints.get(number, ""))
