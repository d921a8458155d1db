"""One slot of shared memory for each worker: the request that it is working on.

A worker reads its request into the slot. If it dies, or does not answer in time and is killed, its
successor answers what is still there: the kernel would wait for that answer for ever. The slot also
counts how many workers a request has outlived, so that one poisonous request cannot take the node
down.
"""

from __future__ import annotations

import mmap

from procscope.fuse import wire
from procscope.fuse.loop import REQUEST_BUFFER_BYTES

_WORD_BYTES = 8
_HEADER_BYTES = wire.fuse_in_header.size


class RequestSlot:
    """Made by the supervisor before the worker is forked; both see the same memory."""

    def __init__(self) -> None:
        self._memory = memoryview(mmap.mmap(-1, REQUEST_BUFFER_BYTES + _WORD_BYTES))
        self.buffer = self._memory[:REQUEST_BUFFER_BYTES]
        """Where requests are read to; its first four bytes are 0 while there is none."""
        self._deaths = self._memory[REQUEST_BUFFER_BYTES:].cast("Q")

    def pending(self) -> dict[str, int] | None:
        """Return the header of the request that is not answered yet, None without one."""
        header = wire.fuse_in_header.unpack(self.buffer)
        return header if _HEADER_BYTES <= header["len"] <= len(self.buffer) else None

    def count_death(self) -> int:
        """Count one more worker that the pending request has outlived; return how many."""
        self._deaths[0] += 1
        return self._deaths[0]

    def forget_deaths(self) -> None:
        """The request is answered: the next one starts from 0."""
        self._deaths[0] = 0
