"""Keeps leases off the files: one process holds each of them open.

A write lease (F_SETLEASE of fcntl(2)) makes everybody else's open(2) wait, for up to 45 s
(`fs.lease-break-time`). Who has uid 0 in a container may take one on any file of the mount, and the
inode is the same for all containers. The kernel grants none on a file that anybody else has open
(check_conflicting_open() in fs/locks.c).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

_HELD = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_CPU_FOLDER = "sys/devices/system/cpu"


class HeldOpen:
    """The files of one mount."""

    def __init__(self, mountpoint: str) -> None:
        self._mountpoint = mountpoint
        self._fds: list[int] = []
        self._missing: list[str] = []
        self._device = 0

    def refresh(self) -> None:
        """Hold the files of what is mounted now; whoever has unmounted it is not hindered.

        A file that somebody has a lease on is tried again at the next call: the first try makes
        the kernel take the lease away, within `fs.lease-break-time`.
        """
        try:
            device = os.stat(self._mountpoint).st_dev
        except OSError:
            device = 0
        if device != self._device:
            self.close()
            self._device = device
            self._missing = list(_files(self._mountpoint))
        self._missing = [path for path in self._missing if not self._hold(path)]

    def close(self) -> None:
        """Let go of them."""
        for fd in self._fds:
            os.close(fd)
        self._fds = []

    def _hold(self, path: str) -> bool:
        """Open a file, and return whether there is nothing more to do about it."""
        try:
            self._fds.append(os.open(path, _HELD))
        except BlockingIOError:
            return False
        except OSError:
            return True  # such as the pressure of a kernel without PSI
        return True


def _files(mountpoint: str) -> Iterator[str]:
    """Yield the views, and the files of the CPU folder itself.

    Below it are too many to hold, and none that a program needs to start.
    """
    for folder, _, names in os.walk(os.path.join(mountpoint, "proc")):
        yield from (os.path.join(folder, name) for name in names)
    with contextlib.suppress(OSError), os.scandir(os.path.join(mountpoint, _CPU_FOLDER)) as entries:
        yield from (entry.path for entry in entries if entry.is_file(follow_symlinks=False))
