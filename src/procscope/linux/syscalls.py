"""System calls that the standard library of Python 3.11 does not have, by their kernel names.

Constants are those of `<linux/mount.h>`, `<linux/sched.h>` and `<linux/prctl.h>`. Every function
raises OSError with the call's errno; `filename` is the path that was to be changed, if there is
one. `pidfd_open`, `memfd_create`, `sethostname` and `pidfd_send_signal` are in `os`, `socket` and
`signal`.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19

MNT_DETACH = 2

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

OPEN_TREE_CLONE = 1

MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40

MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15

TASK_COMM_LEN = 16
"""Bytes of a task's name with the closing NUL."""

# Calls since 5.2 have one number everywhere, but for alpha and MIPS, which answer ENOSYS to it.
_OPEN_TREE: Final = 428
_MOVE_MOUNT: Final = 429
_OPENAT2: Final = 437
_PIDFD_GETFD: Final = 438
_MOUNT_SETATTR: Final = 442
_FIRST_RELEASE: Final = {
    "open_tree": "5.2",
    "move_mount": "5.2",
    "openat2": "5.6",
    "pidfd_getfd": "5.6",
    "mount_setattr": "5.12",
}


class _OpenHow(ctypes.Structure):
    """`struct open_how` of `<linux/openat2.h>`."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


class _MountAttr(ctypes.Structure):
    """`struct mount_attr` of `<linux/mount.h>`."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


_libc = ctypes.CDLL(None, use_errno=True)

_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_libc.mount.restype = ctypes.c_int
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.umount2.restype = ctypes.c_int
_libc.unshare.argtypes = (ctypes.c_int,)
_libc.unshare.restype = ctypes.c_int
_libc.setns.argtypes = (ctypes.c_int, ctypes.c_int)
_libc.setns.restype = ctypes.c_int
# prctl(2) is variadic, and every optional argument is an unsigned long.
_libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)
_libc.prctl.restype = ctypes.c_int
_libc.syscall.restype = ctypes.c_long


def mount(
    source: str | None, target: str, fstype: str | None, flags: int, data: str | None = None
) -> None:
    """mount(2): mount or bind `source` on `target`, or change the mount at `target`."""
    arguments = (_path(source), _path(target), _path(fstype), flags, _path(data))
    _check(_libc.mount(*arguments), "mount", target)


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2): take the topmost mount at `target` away."""
    _check(_libc.umount2(_path(target), flags), "umount2", target)


def unshare(flags: int) -> None:
    """unshare(2): leave the namespaces that `flags` (CLONE_NEW*) name for new ones."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, nstype: int) -> None:
    """setns(2): enter the namespace of `fd`, or with a pidfd those that `nstype` names."""
    _check(_libc.setns(fd, nstype), "setns")


def open_tree(directory_fd: int, path: str, flags: int) -> int:
    """open_tree(2): a descriptor of the mount at `path`; with OPEN_TREE_CLONE, of a copy of it.

    Closed on exec. A copy is attached nowhere, and is gone with its last descriptor.
    """
    flags |= os.O_CLOEXEC
    return _syscall("open_tree", _OPEN_TREE, path, directory_fd, _path(path), flags)


def move_mount(mount_fd: int, target_fd: int) -> None:
    """move_mount(2): attach the mount of `mount_fd` on what `target_fd` is open at.

    No path is walked: what was looked at when the descriptors were opened is what is used.
    """
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    _syscall("move_mount", _MOVE_MOUNT, None, mount_fd, b"", target_fd, b"", flags)


def mount_setattr(mount_fd: int, attr_set: int, propagation: int = 0) -> None:
    """mount_setattr(2): set attributes (MOUNT_ATTR_*) and propagation (MS_*) of one mount."""
    attributes = _MountAttr(attr_set=attr_set, propagation=propagation)
    size = ctypes.sizeof(attributes)
    arguments = (mount_fd, b"", AT_EMPTY_PATH, ctypes.byref(attributes), ctypes.c_size_t(size))
    _syscall("mount_setattr", _MOUNT_SETATTR, None, *arguments)


def openat2(directory_fd: int, path: str, flags: int, resolve: int) -> int:
    """openat2(2): open `path`, walked as `resolve` (RESOLVE_*) allows. Closed on exec."""
    how = _OpenHow(flags=flags | os.O_CLOEXEC, resolve=resolve)
    arguments = (directory_fd, _path(path), ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how)))
    return _syscall("openat2", _OPENAT2, path, *arguments)


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """pidfd_getfd(2): a descriptor here of what `fd` is in the other process. Closed on exec."""
    return _syscall("pidfd_getfd", _PIDFD_GETFD, None, pidfd, fd, 0)


def set_pdeathsig(signal_number: int) -> None:
    """PR_SET_PDEATHSIG: have the kernel send this signal when the parent *thread* dies.

    0 clears it. The kernel does not look back: a parent that is dead already sends nothing.
    """
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "prctl")


def set_name(name: str) -> None:
    """PR_SET_NAME: name this thread, as `ps -o comm` shows it; cut to 15 bytes."""
    buffer = ctypes.create_string_buffer(os.fsencode(name)[: TASK_COMM_LEN - 1])
    _check(_libc.prctl(PR_SET_NAME, ctypes.addressof(buffer), 0, 0, 0), "prctl")


def _path(text: str | None) -> bytes | None:
    """Return `text` as the kernel takes it. Raises ValueError for an embedded NUL."""
    if text is None:
        return None
    encoded = os.fsencode(text)
    if b"\0" in encoded:
        raise ValueError(f"embedded NUL: {text!r}")
    return encoded


def _syscall(call: str, number: int, path: str | None, *arguments: object) -> int:
    """syscall(2), for which glibc has no function of its own yet. Raises OSError."""
    result = int(_libc.syscall(ctypes.c_long(number), *map(_argument, arguments)))
    _check(result, call, path)
    return result


def _argument(value: object) -> object:
    """syscall(2) is variadic: an int has to be as wide as a register."""
    return ctypes.c_long(value) if isinstance(value, int) else value


def _check(result: int, call: str, path: str | None = None) -> None:
    """Raise OSError with the errno of the call that has just returned `result`."""
    if result >= 0:
        return
    number = ctypes.get_errno()
    message = f"{call}: {os.strerror(number)}"
    if number == errno.ENOSYS:
        since = f", it came with {_FIRST_RELEASE[call]}" if call in _FIRST_RELEASE else ""
        message += f" (Linux {os.uname().release} has no {call}{since}"
        message += ", or a seccomp filter hides it)"
    raise OSError(number, message, path)
