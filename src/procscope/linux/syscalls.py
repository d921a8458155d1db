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

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_SLAVE = 1 << 19

MNT_DETACH = 2

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15

TASK_COMM_LEN = 16
"""Bytes of a task's name with the closing NUL."""

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


def _check(result: int, call: str, path: str | None = None) -> None:
    """Raise OSError with the errno of the call that has just returned `result`."""
    if result >= 0:
        return
    number = ctypes.get_errno()
    message = f"{call}: {os.strerror(number)}"
    if number == errno.ENOSYS:
        message += f" (Linux {os.uname().release} has no {call}, or a seccomp filter hides it)"
    raise OSError(number, message, path)
