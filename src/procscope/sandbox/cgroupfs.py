"""Writing to cgroupfs: files, locks, and taking cgroups away with what is still in them.

A sandbox's cgroup is locked (flock(2) on its directory) by the launcher for as long as that lives;
the kernel drops the lock with the launcher, however it ends. So a cgroup without a lock is a dead
run's, and no file elsewhere has to say so.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import time
from collections.abc import Iterator

_DEADLINE_S = 10.0
"""How long killed processes may take to leave; one in uninterruptible I/O takes its time."""
_RETRY_S = 0.005
_LOCK_PATIENCE_S = 1.0


def write(directory: str, file: str, text: str) -> None:
    """Write a control file in one write(2), never creating it. Raises OSError."""
    descriptor = os.open(os.path.join(directory, file), os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode("ascii"))
    except OSError as error:
        error.filename = os.path.join(directory, file)
        raise
    finally:
        os.close(descriptor)


def read(directory: str, file: str) -> str:
    """Return a control file's text without white space around it. Raises OSError."""
    with open(os.path.join(directory, file), encoding="ascii", errors="replace") as stream:
        return stream.read().strip()


def reason(error: OSError) -> str:
    """Return why a call failed, without the path, which the message names in its own way."""
    return os.strerror(error.errno) if error.errno else str(error)


def exists(directory: str, file: str) -> bool:
    """Return whether the cgroup has this control file."""
    return os.path.exists(os.path.join(directory, file))


def take(directory: str) -> int | None:
    """Make the cgroup where it is missing, lock it, and return the descriptor of the lock.

    None where a live launcher has it. Raises OSError, FileNotFoundError for a missing parent.
    """
    deadline = time.monotonic() + _LOCK_PATIENCE_S
    while True:
        if not os.path.isdir(directory):
            _make(directory)
        descriptor = lock(directory)
        if descriptor is not None:
            return descriptor
        # Another launcher that clears stale cgroups away holds each lock for an instant.
        if (os.path.isdir(directory) and processes(directory)) or time.monotonic() > deadline:
            return None
        time.sleep(_RETRY_S)


def lock(directory: str) -> int | None:
    """Return a descriptor that holds the cgroup's lock, None where it is taken or gone."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The one who held the lock before may have removed the directory under our descriptor.
        if os.path.samestat(os.fstat(descriptor), os.stat(directory)):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def processes(directory: str) -> set[int]:
    """Return the pids in a cgroup and below it; those of other PID namespaces are left out."""
    pids: set[int] = set()
    for cgroup in _bottom_up(directory):
        try:
            pids.update(int(pid) for pid in read(cgroup, "cgroup.procs").split())
        except OSError:
            continue  # Gone meanwhile, or a threaded cgroup, whose domain lists the process.
    return pids - {0}


def remove(directory: str) -> None:
    """Kill what is in a cgroup, wait until it is empty, and remove it with its children.

    A cgroup that is gone already is no error. Raises OSError where processes do not go in time.
    """
    deadline = time.monotonic() + _DEADLINE_S
    while os.path.isdir(directory):
        _kill(directory)
        try:
            for cgroup in _bottom_up(directory):
                _remove_one(cgroup)
        except OSError as error:
            # Dying processes keep a cgroup busy until they are reaped.
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY) or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_S)


def remove_if_empty(directory: str) -> None:
    """Remove a cgroup that nothing is in or below; leave any other alone."""
    try:
        os.rmdir(directory)
    except OSError:
        return


def _make(directory: str) -> None:
    try:
        os.mkdir(directory)
    except FileExistsError:
        return


def _remove_one(directory: str) -> None:
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return


def _kill(directory: str) -> None:
    """Send SIGKILL to all processes in the cgroup and below it."""
    try:
        write(directory, "cgroup.kill", "1")  # cgroup v2 since Linux 5.14
    except OSError:
        for pid in processes(directory):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def _bottom_up(directory: str) -> Iterator[str]:
    for path, _, _ in os.walk(directory, topdown=False):
        yield path
