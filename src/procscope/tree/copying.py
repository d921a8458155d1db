"""Which contents are being copied out of the page cache just now.

A READ's answer goes into the page cache, and the reader copies from there, up to the size that the
inode has by then. Where another reader's GETATTR has told of a larger content in between, the first
one finds the end of his full of zeros, and of a smaller one, his is cut off (filemap_read() in
mm/filemap.c looks at the size once the page is there). So a new content waits for who reads.
"""

from __future__ import annotations

import time
from typing import Final

from procscope.ids import NodeId

AT_MOST_NS: Final = 50_000_000
"""So long a new content waits at most, where READs go on and on: past the page cache (O_DIRECT),
or because memory is short."""


class Copying:
    """When each node's content was last given out for the page cache."""

    def __init__(self) -> None:
        self._read_ns: dict[NodeId, int] = {}
        self._waits_since_ns: dict[NodeId, int] = {}

    def begin(self, nodeid: NodeId) -> None:
        """A READ is answered."""
        now_ns = time.monotonic_ns()
        if now_ns - self._read_ns.get(nodeid, 0) > AT_MOST_NS:
            self._waits_since_ns.pop(nodeid, None)
        self._read_ns[nodeid] = now_ns

    def is_likely(self, nodeid: NodeId, copying_ns: int) -> bool:
        """Tell whether a READ was answered less than `copying_ns` ago."""
        read_ns = self._read_ns.get(nodeid)
        if read_ns is None:
            return False
        if time.monotonic_ns() - read_ns < copying_ns:
            return True
        self.forget(nodeid)
        return False

    def lets_wait(self, nodeid: NodeId) -> bool:
        """Tell whether a new content waits, once more."""
        now_ns = time.monotonic_ns()
        if now_ns - self._waits_since_ns.setdefault(nodeid, now_ns) < AT_MOST_NS:
            return True
        self.forget(nodeid)
        return False

    def forget(self, nodeid: NodeId) -> None:
        """Nobody copies what was given out of this node."""
        self._read_ns.pop(nodeid, None)
        self._waits_since_ns.pop(nodeid, None)

    def sweep(self) -> None:
        """Forget what has certainly been copied by now."""
        before_ns = time.monotonic_ns() - AT_MOST_NS
        for nodeid in [node for node, read_ns in self._read_ns.items() if read_ns < before_ns]:
            self.forget(nodeid)
