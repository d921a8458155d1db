"""The launcher's own namespaces: a mount namespace, and without root a user namespace around it.

See user_namespaces(7). What forbids user namespaces differs by distribution; when the kernel says
no, the switches it and they have are read, so that the message names the one that is set.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from procscope.errors import ExitCode, ProcscopeError
from procscope.linux import syscalls

_CAP_SYS_ADMIN = 21


def can_unshare(proc: str = "/proc") -> bool:
    """Return whether this process may make namespaces as it is (CAP_SYS_ADMIN)."""
    try:
        with open(f"{proc}/self/status", encoding="ascii", errors="replace") as file:
            status = dict(line.split(":", 1) for line in file if ":" in line)
        return bool(int(status["CapEff"], 16) >> _CAP_SYS_ADMIN & 1)
    except (OSError, KeyError, ValueError):
        return os.geteuid() == 0


def enter_mount_namespace() -> None:
    """Leave the mount namespace for a copy, into which the host's later mounts still come.

    Raises ProcscopeError.
    """
    try:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        _receive_only()
    except OSError as error:
        raise _failed(f"cannot make a mount namespace: {error.strerror}") from error


def enter_user_namespace(proc: str = "/proc") -> None:
    """Become root of a new user namespace that holds the caller alone, with a mount namespace.

    Raises ProcscopeError that names what forbids it.
    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
        # Without `deny` an unprivileged process may not map its group (Linux 3.19).
        _write(f"{proc}/self/setgroups", "deny")
        _write(f"{proc}/self/uid_map", f"0 {uid} 1")
        _write(f"{proc}/self/gid_map", f"0 {gid} 1")
        # Ubuntu lets anyone make the namespace, but takes away what may be done in it.
        _receive_only()
    except OSError as error:
        raise _failed(
            f"cannot make a user namespace: {error.strerror}",
            f"run it as root, or {what_forbids_user_namespaces(error.errno or 0, proc)}",
        ) from error


@contextmanager
def children_in_pid_namespace(proc: str = "/proc") -> Iterator[None]:
    """Have the first child be PID 1 of a new PID namespace; later ones are born in the old one.

    Without root the way back is closed: fork(2) fails with ENOMEM once that PID 1 has ended.
    Raises ProcscopeError.
    """
    old = os.open(f"{proc}/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.unshare(syscalls.CLONE_NEWPID)
        yield
        try:
            syscalls.setns(old, syscalls.CLONE_NEWPID)
        except PermissionError:
            return
    except OSError as error:
        raise _failed(f"cannot make a PID namespace: {error.strerror}") from error
    finally:
        os.close(old)


def what_forbids_user_namespaces(number: int, proc: str = "/proc") -> str:
    """Return what to do about an errno of unshare(CLONE_NEWUSER), from the switches in `proc`."""
    if number == errno.EINVAL:
        return "use a kernel built with CONFIG_USER_NS"
    for switch, forbidding, permitting in (
        ("user/max_user_namespaces", "0", "15000"),
        ("kernel/unprivileged_userns_clone", "0", "1"),  # Debian's and Arch's patch
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),  # Ubuntu 23.10 and later
    ):
        if _read(f"{proc}/sys/{switch}") == forbidding:
            name = switch.replace("/", ".")
            return f"allow them: sysctl -w {name}={permitting} (it is {forbidding})"
    if number == errno.ENOSPC:
        return "raise sysctl user.max_user_namespaces"
    return "allow them: a seccomp filter, an LSM or a chroot forbids them here"


def _receive_only() -> None:
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None


def _failed(message: str, hint: str = "") -> ProcscopeError:
    return ProcscopeError(message, hint=hint, exit_code=ExitCode.RUN_FAILED)
