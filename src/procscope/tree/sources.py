"""Which files a new container takes from the pinned tree, and which from the live one."""

from __future__ import annotations

import os
from enum import Enum

PINNED_FOLDER = "self"
"""Where the pinned tree is, in the live one."""
FOLLOW_LIMITS = ("proc/cpuinfo", "sys/devices/system/cpu")
"""What changes with the container's limits, and not with what it does."""


class Pinned(Enum):
    """How much is taken from the pinned tree."""

    NONE = "none"
    LIMITS = "limits"
    """What changes with the limits alone."""
    ALL = "all"

    def source(self, file: str) -> str:
        """Return where in the mount `file` (`proc/meminfo`) is taken from."""
        pinned = self is Pinned.ALL or (self is Pinned.LIMITS and file in FOLLOW_LIMITS)
        return f"{PINNED_FOLDER}/{file}" if pinned else file


def available(mountpoint: str, wanted: Pinned) -> Pinned:
    """Return `wanted`, or NONE where the daemon, if there is one, knows of no pinned tree.

    Where one has none mounted, the same paths lead to its live tree.
    """
    links = (os.path.join(mountpoint, PINNED_FOLDER, name) for name in ("proc", "sys"))
    return wanted if any(os.path.islink(link) for link in links) else Pinned.NONE
