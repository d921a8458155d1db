"""The host's memory: how much there is, looked at each few milliseconds, at a small price."""

from __future__ import annotations

import time
from collections.abc import Callable

from procscope.views import meminfo


class HostMemoryFile:
    """`/proc/meminfo`, taken apart only where it tells something else of what there is.

    Memory, swap space and huge pages come and go by an administrator's hand, and that shows at
    once. What else a container's file takes from it has the age of what is steady.
    """

    def __init__(self, read: Callable[[], bytes], look_every_ns: int, parse_every_ns: int) -> None:
        self._read = read
        self._look_every_ns = look_every_ns
        self._parse_every_ns = parse_every_ns
        self._told: bytes | None = None
        self._memory: meminfo.HostMemory | None = None
        self._looked_at_ns = 0
        self._parsed_at_ns = 0

    def now(self) -> meminfo.HostMemory:
        """Return what there is, the same object as long as that is equal.

        Raises OSError, ValueError.
        """
        now_ns = time.monotonic_ns()
        memory = self._memory
        if memory is not None and now_ns - self._looked_at_ns <= self._look_every_ns:
            return memory
        text = self._read()
        told = meminfo.what_there_is(text)
        if (
            memory is None
            or told != self._told
            or now_ns - self._parsed_at_ns > self._parse_every_ns
        ):
            parsed = meminfo.parse(text)
            if parsed != memory:
                # Whatever was made of it is compared with this very object at each read.
                self._memory = memory = parsed
            self._told, self._parsed_at_ns = told, now_ns
        self._looked_at_ns = now_ns
        return memory
