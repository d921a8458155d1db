"""Node ids of the pinned tree: which container, and which file of it.

A file's own part is computed from its path, as on the live tree (`nodeids.py`), but shorter, so
that there is room for the container's number beside it:

bit 63       set; the few nodes that are no container's have small ids
bits 45-62   the container's number
bit 44       set below `sys/devices/system/cpu`
bits 29-43   there: 0, or the folder that the file is in: of a CPU, or of a frequency policy
the others   a hash of the path, or of the rest of the path in that folder
"""

from __future__ import annotations

import re
from typing import Final

from procscope.digest import blake2b
from procscope.ids import CpuId, NodeId
from procscope.tree.nodeids import SysfsPaths, cpu_of_path

NUMBER_BITS: Final = 18
_OF_A_CONTAINER: Final = 1 << 63
_PART_BITS: Final = 45
_PART_MASK: Final = (1 << _PART_BITS) - 1
_SYSFS_BIT: Final = 1 << 44
_NAMED_HASH_BITS: Final = 40
_HASH_BITS: Final = 29
_FIRST_POLICY: Final = 1 << 14
"""The kernel has 8192 CPUs at most (CONFIG_NR_CPUS)."""
_FOLDERS: Final = 1 << 15
_POLICY: Final = re.compile(r"cpufreq/policy(\d{1,6})(?=/|\Z)", re.ASCII)


def join(number: int, part: NodeId) -> NodeId:
    """Return the id of a container's node."""
    return NodeId(_OF_A_CONTAINER | number << _PART_BITS | part)


def split(nodeid: NodeId) -> tuple[int, NodeId] | None:
    """Return the container's number and its node; None where the node is no container's."""
    if not nodeid & _OF_A_CONTAINER:
        return None
    number = (nodeid & ~_OF_A_CONTAINER) >> _PART_BITS
    return number, NodeId(nodeid & _PART_MASK)


def named_part(path: str) -> NodeId:
    """Return the part that stands for a name of the tree's own; "" is the container's folder."""
    return NodeId(_hash(path, _NAMED_HASH_BITS))


def is_sysfs_part(part: NodeId) -> bool:
    """Tell whether a part is below `sys/devices/system/cpu`."""
    return bool(part & _SYSFS_BIT)


class PinnedPaths(SysfsPaths):
    """Part of a node id <-> path relative to the host's `…/system/cpu`."""

    def cpu(self, nodeid: NodeId) -> CpuId | None:
        """Return the CPU whose folder the node is in, or None."""
        folder = _folder_number(nodeid)
        return CpuId(folder - 1) if 0 < folder < _FIRST_POLICY else None

    def _compute(self, path: str) -> NodeId:
        folder, number = _folder_of(path)
        rest = path[len(folder) :]
        return NodeId(_SYSFS_BIT | number << _HASH_BITS | _hash(rest, _HASH_BITS))

    def _folder(self, nodeid: NodeId) -> str:
        number = _folder_number(nodeid)
        if number >= _FIRST_POLICY:
            return f"cpufreq/policy{number - _FIRST_POLICY}"
        return f"cpu{number - 1}" if number else ""


def _folder_number(part: NodeId) -> int:
    return (part & ~_SYSFS_BIT) >> _HASH_BITS


def _folder_of(path: str) -> tuple[str, int]:
    """Return the numbered folder that a path is in, and the folder's number; ("", 0) if in none."""
    cpu = cpu_of_path(path)
    if cpu is not None and cpu + 1 < _FIRST_POLICY:
        return path.partition("/")[0], cpu + 1
    policy = _POLICY.match(path)
    if policy is not None and int(policy[1]) + _FIRST_POLICY < _FOLDERS:
        return policy[0], int(policy[1]) + _FIRST_POLICY
    return "", 0


def _hash(text: str, bits: int) -> int:
    digest = blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little") & (1 << bits) - 1
