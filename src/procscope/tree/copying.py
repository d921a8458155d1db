"""When the kernel can be told that a file has another size now.

fuse_change_attributes() in fs/fuse/inode.c sets a new size first and drops the pages after that,
and it drops a reply's attributes where another one was taken up since the request. Who copies from
an old page in between finds its end full of zeros, or misses it; and where the kernel has not taken
the new size up, what it reads next is cut off at the old one. So a new size waits until nobody can
be copying and no other reply be on its way, and whoever asks next waits until the first who was
told of it is through. Contents of one size need none of it: the old page is whole.
"""

from __future__ import annotations

import time
from typing import Final

from procscope.ids import NodeId, Pid

QUIET_NS: Final = 20_000_000
"""How long a reader may take for his copy, or a reply's attributes until they are taken up. Who is
told of the old size meanwhile is told for so long, or READ and GETATTR would go on and on."""
AT_MOST_NS: Final = 50_000_000
"""So long a new size waits where READs go on all the same: past the page cache (O_DIRECT), or
because memory is short."""
ARRIVING_NS: Final = 10_000_000
"""How long who is told of a new size may take until the old pages are dropped."""


class Copying:
    """When each node was last answered for, and who was told of another size."""

    def __init__(self) -> None:
        self._answered_ns: dict[NodeId, int] = {}
        self._waits_since_ns: dict[NodeId, int] = {}
        self._told: dict[NodeId, tuple[Pid, int]] = {}

    def answer(self, nodeid: NodeId) -> None:
        """Attributes, or a piece of the content, are given out."""
        self._answered_ns[nodeid] = time.monotonic_ns()

    def has_new_size_wait(self, nodeid: NodeId) -> bool:
        """Tell whether somebody may be copying, or a reply be on its way."""
        now_ns = time.monotonic_ns()
        if now_ns - self._answered_ns.get(nodeid, 0) >= QUIET_NS:
            return False
        return now_ns - self._waits_since_ns.setdefault(nodeid, now_ns) < AT_MOST_NS

    def tell_new_size(self, nodeid: NodeId, pid: Pid) -> None:
        """`pid` is told of another size than the node had."""
        self._waits_since_ns.pop(nodeid, None)
        self._told[nodeid] = (pid, time.monotonic_ns())

    def let_arrive(self, nodeid: NodeId, pid: Pid) -> None:
        """Sleep, where anyone but `pid` was told of a new size just now, until he is through."""
        told = self._told.pop(nodeid, None)
        # Who asks again has come through. A pid of 0 is of a namespace that is not seen from here.
        if told is not None and (told[0] != pid or pid == 0):
            left_ns = told[1] + ARRIVING_NS - time.monotonic_ns()
            if left_ns > 0:
                time.sleep(left_ns / 1e9)

    def forget(self, nodeid: NodeId) -> None:
        """The kernel has dropped the node and its pages."""
        self._answered_ns.pop(nodeid, None)
        self._waits_since_ns.pop(nodeid, None)
        self._told.pop(nodeid, None)

    def sweep(self) -> None:
        """Forget what is over by now."""
        before_ns = time.monotonic_ns() - AT_MOST_NS
        for nodeid in [node for node, ns in self._answered_ns.items() if ns < before_ns]:
            self.forget(nodeid)
