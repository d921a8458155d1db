"""Which controllers live where: the cgroup hierarchies that the mount table shows.

v1 has one mount for each set of controllers (`cgroup_show_options()` in the kernel's
`kernel/cgroup/cgroup-v1.c`), v2 one mount of type `cgroup2`; on a hybrid host there are both.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal

from procscope.ids import CgroupPath
from procscope.linux.mountinfo import Mount
from procscope.linux.procfs import UNIFIED
from procscope.values import frozen

Version = Literal[1, 2]

_V1_FLAGS = frozenset(
    {
        *("rw", "ro", "seclabel", "all", "none", "noprefix", "xattr", "clone_children"),
        *("cpuset_v2_mode", "favordynmods", "nofavordynmods"),
    }
)
"""Superblock options of a v1 mount that are no controllers; those with `=` are none either."""


@frozen
class Hierarchy:
    """One hierarchy, as far as one mount shows it."""

    version: Version
    mount_point: str
    root: str = "/"
    """The cgroup that is mounted at `mount_point`; `/` is the top of our cgroup namespace."""
    is_whole: bool = True
    """Whether `mount_point` is the hierarchy's root cgroup, which has no limits of its own."""

    def directory(self, path: CgroupPath) -> str | None:
        """Return the directory of the cgroup `path`; None if this mount does not show it."""
        below = self._below_the_mount(path)
        if below is None:
            return None
        return "/".join((self.mount_point.rstrip("/"), *below)) or "/"

    def lineage(self, path: CgroupPath) -> tuple[str, ...]:
        """Return the directories of `path` and of its ancestors, innermost first.

        The hierarchy's root cgroup is left out: it limits nothing, and what it counts is the
        host's. Empty if `path` is the root, or not below this mount.
        """
        below = self._below_the_mount(path)
        if below is None:
            return ()
        top = 1 if self.is_whole else 0
        mount_point = self.mount_point.rstrip("/")
        return tuple(
            "/".join((mount_point, *below[:depth])) for depth in range(len(below), top - 1, -1)
        )

    def _below_the_mount(self, path: CgroupPath) -> list[str] | None:
        """The names from the mount point down to `path`.

        `/..` leads out of our cgroup namespace: the kernel names neither a cgroup out there
        nor a mount of one by a path that could be followed.
        """
        names = [name for name in path.split("/") if name]
        root_names = [name for name in self.root.split("/") if name]
        if not path.startswith("/") or ".." in names or "." in names or ".." in root_names:
            return None
        if names[: len(root_names)] != root_names:
            return None
        return names[len(root_names) :]


@frozen
class Hierarchies:
    """All hierarchies of the host."""

    v1: Mapping[str, tuple[Hierarchy, ...]] = MappingProxyType({})
    """Controller, or `name=systemd`, -> its mounts, the one that shows most first."""
    v2: tuple[Hierarchy, ...] = ()
    """The mounts of the v2 hierarchy, the one that shows most first."""
    v2_controllers: frozenset[str] = frozenset()
    """`cgroup.controllers` of the topmost v2 cgroup that can be seen."""

    def version(self, controller: str) -> Version | None:
        """Return which version `controller` is on; None if it is nowhere."""
        if controller in self.v1:
            return 1
        if self.v2 and (controller == UNIFIED or controller in self.v2_controllers):
            return 2
        return None

    def directory(self, controller: str, path: CgroupPath) -> str | None:
        """Return the directory of `path` in the hierarchy that has `controller`.

        `UNIFIED` stands for the v2 hierarchy. None where no mount shows it.
        """
        for hierarchy in self._mounts_of(controller):
            directory = hierarchy.directory(path)
            if directory is not None:
                return directory
        return None

    def lineage(self, controller: str, path: CgroupPath) -> tuple[str, ...]:
        """Return `path` and its ancestors as `Hierarchy.lineage`, from the first mount that can."""
        for hierarchy in self._mounts_of(controller):
            if hierarchy.directory(path) is not None:
                return hierarchy.lineage(path)
        return ()

    def _mounts_of(self, controller: str) -> tuple[Hierarchy, ...]:
        version = self.version(controller)
        if version == 1:
            return self.v1[controller]
        return self.v2 if version == 2 else ()


def discover(mounts: Iterable[Mount]) -> Hierarchies:
    """Return the hierarchies among `mounts`. Unreadable mount points are taken as they look.

    Of two mounts at one place the later one hides the other. Of two mounts of one hierarchy the
    one with the shorter root shows more and comes first.
    """
    visible = {mount.mount_point: mount for mount in mounts}
    v1: defaultdict[str, list[Hierarchy]] = defaultdict(list)
    v2: list[Hierarchy] = []
    for mount in visible.values():
        if mount.fstype == "cgroup2":
            v2.append(_hierarchy(mount, 2))
        elif mount.fstype == "cgroup":
            for controller in _v1_controllers(mount):
                v1[controller].append(_hierarchy(mount, 1))
    v2.sort(key=_how_much_is_hidden)
    return Hierarchies(
        v1={name: tuple(sorted(all_, key=_how_much_is_hidden)) for name, all_ in v1.items()},
        v2=tuple(v2),
        v2_controllers=_v2_controllers(v2[0].mount_point) if v2 else frozenset(),
    )


def _hierarchy(mount: Mount, version: Version) -> Hierarchy:
    return Hierarchy(
        version=version,
        mount_point=mount.mount_point,
        root=mount.root,
        is_whole=mount.root == "/" and _is_root_cgroup(mount.mount_point, version),
    )


def _is_root_cgroup(directory: str, version: Version) -> bool:
    """Tell a hierarchy's root from the root of our cgroup namespace: mountinfo calls both `/`.

    v2 has `cgroup.events` everywhere but there (CFTYPE_NOT_ON_ROOT), v1 `cgroup.sane_behavior`
    only there (CFTYPE_ONLY_ON_ROOT).
    """
    if version == 2:
        return not os.path.exists(f"{directory}/cgroup.events")
    return os.path.exists(f"{directory}/cgroup.sane_behavior")


def _how_much_is_hidden(hierarchy: Hierarchy) -> tuple[bool, int]:
    names = [name for name in hierarchy.root.split("/") if name]
    return ".." in names, len(names)


def _v1_controllers(mount: Mount) -> list[str]:
    return [
        option
        for option in mount.super_options
        if option.startswith("name=") or ("=" not in option and option not in _V1_FLAGS)
    ]


def _v2_controllers(mount_point: str) -> frozenset[str]:
    try:
        with open(f"{mount_point}/cgroup.controllers", encoding="ascii", errors="replace") as file:
            return frozenset(file.read().split())
    except OSError:
        return frozenset()
