"""The contents that the kernel's page cache has, or is about to get.

Without OPEN a file is read piece by piece, in requests that know nothing of each other. So a
content changes when the kernel asks for attributes, and then size and mtime change with it, which
has the kernel drop what it has cached; every READ in between gives out the same content. They are
kept in memory that outlives this process: its successor answers a READ with what it had begun.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Protocol

from procscope.ids import FileHandle, NodeId
from procscope.values import frozen


class SnapshotStore(Protocol):
    """Contents by handle, each with two numbers, in memory that outlives this process."""

    def put(self, content: bytes, opener: int = 0, owner: int = 0) -> FileHandle:
        """Keep a content with both numbers; 0 where there is no room for it."""
        ...

    def get(self, handle: FileHandle) -> bytes | None:
        """Return a kept content."""
        ...

    def owner(self, handle: FileHandle) -> int | None:
        """Return the second number that a content was kept with."""
        ...

    def release(self, handle: FileHandle) -> None:
        """Keep it no longer."""
        ...

    def kept(self) -> Mapping[int, FileHandle]:
        """Return what a predecessor has kept, by the first number."""
        ...


@frozen
class Snapshot:
    """One content, and since when it is that."""

    content: bytes
    mtime_ns: int


@frozen
class _Kept:
    handle: FileHandle
    size_bytes: int
    mtime_ns: int


class Snapshots:
    """The last content of each node, of those that were asked for last."""

    def __init__(self, store: SnapshotStore) -> None:
        self._store = store
        self._kept: OrderedDict[NodeId, _Kept] = OrderedDict()
        for node, handle in store.kept().items():
            content, mtime_ns = store.get(handle), store.owner(handle)
            if content is not None and mtime_ns is not None:
                self._kept[NodeId(node)] = _Kept(handle, len(content), mtime_ns)

    def get(self, nodeid: NodeId) -> Snapshot | None:
        """Return the last content of a node; None where it is not known any more."""
        kept = self._kept.get(nodeid)
        if kept is None:
            return None
        content = self._store.get(kept.handle)
        return None if content is None else Snapshot(content, kept.mtime_ns)

    def size_bytes(self, nodeid: NodeId) -> int | None:
        """Return how long the last content of a node is, without a look at it."""
        kept = self._kept.get(nodeid)
        return None if kept is None else kept.size_bytes

    def update(self, nodeid: NodeId, content: bytes) -> Snapshot:
        """Make this the content of a node; the time of change changes where the content does."""
        before = self._kept.get(nodeid)
        if before is not None:
            self._kept.move_to_end(nodeid)
            if before.size_bytes == len(content) and self._store.get(before.handle) == content:
                return Snapshot(content, before.mtime_ns)
        mtime_ns = max(time.time_ns(), 0 if before is None else before.mtime_ns + 1)
        handle = self._put(content, nodeid, mtime_ns)
        # Until here a successor finds the older one, or both, and takes either.
        self.forget(nodeid)
        if handle:
            self._kept[nodeid] = _Kept(handle, len(content), mtime_ns)
        return Snapshot(content, mtime_ns)

    def forget(self, nodeid: NodeId) -> None:
        """The kernel has dropped the node, as far as this tree knows."""
        kept = self._kept.pop(nodeid, None)
        if kept is not None:
            self._store.release(kept.handle)

    def _put(self, content: bytes, nodeid: NodeId, mtime_ns: int) -> FileHandle:
        handle = self._store.put(content, nodeid, mtime_ns)
        if not handle:
            # Whatever is as long has room for it.
            oldest = (n for n, kept in self._kept.items() if kept.size_bytes >= len(content))
            victim = next(oldest, None)
            if victim is not None:
                self.forget(victim)
                handle = self._store.put(content, nodeid, mtime_ns)
        return handle
