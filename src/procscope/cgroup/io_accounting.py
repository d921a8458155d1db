"""Makes a cgroup v1 kernel count the I/O of its cgroups.

Since Linux 6.10 (commit a3166c51702b, "blk-throttle: delay initialization until configuration") a
disk's `blkio.throttle.io_*` files count nothing before a throttle rule was written for that disk
once. A rule of 0 bytes per second means "no rule": it limits nothing, and switches the counters on.
On older kernels, which always count, writing it changes nothing.
"""

from __future__ import annotations

import os

from procscope.cgroup.hierarchy import Hierarchies
from procscope.ids import CgroupPath

_RULES = "blkio.throttle.read_bps_device"


class IoAccounting:
    """Switches the counters of this host's disks on, each once. Does nothing on cgroup v2."""

    def __init__(self, hierarchies: Hierarchies, sys: str = "/sys") -> None:
        root = hierarchies.directory("blkio", CgroupPath("/"))
        is_v1 = root is not None and hierarchies.version("blkio") == 1
        self._rules = f"{root}/{_RULES}" if is_v1 else None
        self._block = f"{sys}/block"
        self._known: set[str] = set()

    def switch_on(self) -> None:
        """Switch on the counters of disks that have come since the last call.

        Best effort: a disk that refuses, or a read-only cgroup tree, leaves the counters at 0.
        """
        if self._rules is None:
            return
        for disk in set(_listdir(self._block)) - self._known:
            self._known.add(disk)
            try:
                with open(f"{self._block}/{disk}/dev", encoding="ascii") as file:
                    number = file.read().strip()
                with open(self._rules, "w", encoding="ascii") as rules:
                    rules.write(f"{number} 0")
            except OSError:
                continue


def _listdir(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []
