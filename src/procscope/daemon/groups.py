"""Which requests take turns: those of one container are one group, the host's are another."""

from __future__ import annotations

import time
from collections.abc import Hashable

from procscope.containers.identity import ContainerFinder
from procscope.ids import Pid

_GOOD_FOR_NS = 50_000_000
"""A process that has moved, or whose pid is another's now, waits in the wrong queue this long; what
it reads is decided anew at each request."""
_CAPACITY = 512
_HOST = "host"


class Groups:
    """Remembers for a moment where processes are, so that most requests cost no system call."""

    def __init__(self, finder: ContainerFinder) -> None:
        self._finder = finder
        self._known: dict[Pid, tuple[Hashable, int]] = {}

    def group_of(self, pid: Pid) -> Hashable:
        """Return the group of the process or thread `pid`."""
        now_ns = time.monotonic_ns()
        known = self._known.get(pid)
        if known is not None and now_ns - known[1] < _GOOD_FOR_NS:
            return known[0]
        if len(self._known) >= _CAPACITY:
            self._known.clear()
        container = self._finder.container_of(pid)
        group = _HOST if container is None else container.key
        self._known[pid] = (group, now_ns)
        return group
