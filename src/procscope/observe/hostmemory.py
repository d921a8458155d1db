"""The host's memory: how much there is, looked at every 0.1 s, at a small price."""

from __future__ import annotations

import time
from collections.abc import Callable

from procscope.views import meminfo

Told = tuple[meminfo.HostMemory, int]
"""What there is, and `vm.overcommit_ratio` in per cent."""


class HostMemoryFile:
    """`/proc/meminfo`, taken apart only where it tells something else of what there is.

    Memory, swap space and huge pages come and go by an administrator's hand. What else a
    container's file takes from it has the age of what is steady.
    """

    def __init__(
        self,
        read: Callable[[], bytes],
        overcommit_ratio: Callable[[], int],
        look_every_ns: int,
        parse_every_ns: int,
    ) -> None:
        self._read = read
        self._overcommit_ratio = overcommit_ratio
        self._look_every_ns = look_every_ns
        self._parse_every_ns = parse_every_ns
        self._text: bytes | None = None
        """What the host has last told of what there is."""
        self._told: Told | None = None
        self._looked_at_ns = 0
        self._parsed_at_ns = 0

    def now(self) -> Told:
        """Return what is told, the same object as long as that is equal.

        Raises OSError, ValueError.
        """
        now_ns = time.monotonic_ns()
        told = self._told
        if told is not None and now_ns - self._looked_at_ns <= self._look_every_ns:
            return told
        return self._look(now_ns)

    def _look(self, now_ns: int) -> Told:
        told = self._told
        text = self._read()
        what_there_is = meminfo.what_there_is(text)
        memory = None if told is None else told[0]
        if (
            memory is None
            or what_there_is != self._text
            or now_ns - self._parsed_at_ns > self._parse_every_ns
        ):
            memory = meminfo.parse(text)
            self._text, self._parsed_at_ns = what_there_is, now_ns
        new = memory, self._overcommit_ratio()
        if told is None or new != told:
            # Whatever was made of it is compared with this very object at each read.
            self._told = told = new
        self._looked_at_ns = now_ns
        return told
