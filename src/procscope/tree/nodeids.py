"""Node ids that every worker computes alike, with no table that they would have to share.

A number is a hash of the path. Below `/sys/devices/system/cpu` it is made of the CPU whose folder
the file is in and a hash of the rest: a worker that did not see the lookup finds the path again by
walking that one folder. The numbers stay the same over restarts, and lookups need no count: FORGET
has nothing to do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from procscope.digest import blake2b
from procscope.ids import CpuId, NodeId

ROOT = NodeId(1)
_SYSFS_BIT = 1 << 62
_NAMED_BIT = 1 << 61
_HASH_BITS = 40
_HASH_MASK = (1 << _HASH_BITS) - 1
_MAX_DEPTH = 8
_CPU_FOLDER = re.compile(r"cpu(\d{1,6})\Z", re.ASCII)


def named_nodeid(path: str) -> NodeId:
    """Return the node id of one of the mount's own names, by its path from the root."""
    return NodeId(_NAMED_BIT | _path_hash(path)) if path else ROOT


def cpu_of_path(path: str) -> CpuId | None:
    """Return the CPU whose folder the path (relative to `…/system/cpu`) is in, or None."""
    found = _CPU_FOLDER.match(path.partition("/")[0])
    return CpuId(int(found[1])) if found else None


def is_sysfs(nodeid: NodeId) -> bool:
    """Tell whether the node is below `sys/devices/system/cpu`."""
    return bool(nodeid & _SYSFS_BIT)


def cpu_of_nodeid(nodeid: NodeId) -> CpuId | None:
    """Return the CPU whose folder the node is in, or None."""
    part = (nodeid & ~_SYSFS_BIT) >> _HASH_BITS
    return CpuId(part - 1) if part else None


class SysfsPaths:
    """Node id <-> path relative to the folder `directory` (the host's `…/system/cpu`)."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._nodeids: dict[str, NodeId] = {}
        self._paths: dict[NodeId, str] = {}

    def nodeid(self, path: str) -> NodeId:
        """Return the node id of `path`."""
        known = self._nodeids.get(path)
        if known is not None:
            return known
        nodeid = self._compute(path)
        self._nodeids[path] = nodeid
        self._paths[nodeid] = path
        return nodeid

    def path(self, nodeid: NodeId) -> str | None:
        """Return the path of `nodeid`; None where the host has no such file (any more)."""
        if nodeid not in self._paths:
            for path in self._walk(self._folder(nodeid), 0):
                self.nodeid(path)
        return self._paths.get(nodeid)

    def cpu(self, nodeid: NodeId) -> CpuId | None:
        """Return the CPU whose folder the node is in, or None."""
        return cpu_of_nodeid(nodeid)

    def _compute(self, path: str) -> NodeId:
        cpu = cpu_of_path(path)
        rest = path if cpu is None else path[path.find("/") :] if "/" in path else ""
        cpu_part = 0 if cpu is None else cpu + 1
        return NodeId(_SYSFS_BIT | cpu_part << _HASH_BITS | _path_hash(rest))

    def _folder(self, nodeid: NodeId) -> str:
        """Return the folder below which the node is."""
        cpu = self.cpu(nodeid)
        return "" if cpu is None else f"cpu{cpu}"

    def _walk(self, path: str, depth: int) -> Iterator[str]:
        """Yield the paths below one CPU's folder, or (for "") all that are in no CPU's folder."""
        yield path
        try:
            with os.scandir(os.path.join(self._directory, path)) as entries:
                children = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        except OSError:
            return
        for name, is_directory in children:
            child = f"{path}/{name}" if path else name
            if not path and cpu_of_path(child) is not None:
                continue
            if is_directory and depth < _MAX_DEPTH:
                yield from self._walk(child, depth + 1)
            else:
                yield child


def _path_hash(path: str) -> int:
    digest = blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little") & _HASH_MASK
