"""What `procscope serve` and `procscope agent` were asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import Enum

from procscope.digest import blake2b
from procscope.observe.registry import VIEWS, View
from procscope.values import frozen
from procscope.views.cpus import CpuCount

DEFAULT_MOUNTPOINT = "/var/lib/procscope"
AGENT_MOUNTPOINT = "/var/lib/procscope/mount"
"""Below a folder that pods mount: what is mounted in it shows on the host, and in other pods."""
DEFAULT_RUN_DIRECTORY = "/run/procscope"
LXCFS_MOUNTPOINT = "/var/lib/lxcfs"
DEFAULT_DEADLINE_S = 2.0
CPU_FOLDER = "sys/devices/system/cpu"
PINNED = "self"
"""The folder of the mount in which the pinned tree is."""

DEFAULT_FILES: tuple[str, ...] = (*(f"proc/{name}" for name in VIEWS), CPU_FOLDER)
"""Every file that can be served, as its path in the mount."""


def default_workers() -> int:
    """Return how many workers answer requests unless told: two, on large hosts up to four."""
    return min(4, max(2, (os.cpu_count() or 1) // 8))


class Keeping(Enum):
    """Which keeper holds the daemon's descriptors while it is restarted."""

    NONE = "none"
    OWN = "own"
    """One that the daemon starts, and starts again."""
    EXTERNAL = "external"
    """One that somebody else starts. The daemon looks for it, and goes on without."""


@frozen
class ServeConfig:
    """Options of one daemon."""

    mountpoint: str = DEFAULT_MOUNTPOINT
    workers: int = default_workers()
    cpu_count: CpuCount = CpuCount.QUOTA
    files: tuple[str, ...] = DEFAULT_FILES
    run_directory: str = DEFAULT_RUN_DIRECTORY
    proc: str = "/proc"
    sys: str = "/sys"
    deadline_s: float = DEFAULT_DEADLINE_S
    """How long a worker may take for one request before it is killed."""
    keeper: Keeping = Keeping.NONE
    yields: bool = False
    """Whether it hands over to a newer daemon that asks; one that does is never reloaded."""
    makes_mountpoint: bool = False
    """Whether a mountpoint that is missing is made."""
    cares_for_containers: bool = False
    """Whether dead mounts in containers are replaced, and mounts taken away before a stop."""
    pinned: bool = True
    """Whether there is a pinned tree."""
    debug: bool = False
    selinux_context: str | None = None
    idmapped_mounts: bool = False
    """Whether bind mounts of the files may be idmapped (Linux 6.12); an open(2) costs one request
    more then. A mount stays as it was made when another daemon takes it over."""

    @property
    def state_directory(self) -> str:
        """Where this daemon keeps what outlives a worker: one folder for each mountpoint."""
        name = blake2b(os.fsencode(self.mountpoint), digest_size=6).hexdigest()
        return os.path.join(self.run_directory, name)

    @property
    def records_directory(self) -> str:
        """Where the containers' records are."""
        return os.path.join(self.state_directory, "containers")

    @property
    def pinned_mountpoint(self) -> str:
        """Where the pinned tree is mounted."""
        return os.path.join(self.mountpoint, PINNED)

    @property
    def pins_directory(self) -> str:
        """Where it is written which containers are pinned."""
        return os.path.join(self.state_directory, "pinned")

    @property
    def views(self) -> Mapping[str, View]:
        """The views to serve, by name below `proc/`."""
        return {name: view for name, view in VIEWS.items() if f"proc/{name}" in self.files}

    @property
    def with_cpu_folder(self) -> bool:
        """Whether `sys/devices/system/cpu` is served."""
        return CPU_FOLDER in self.files
