"""Whether all tasks of a container sleep still, by the CPU time that it has used since.

A task that runs uses CPU time, and one that blocks on a disk has used some on the way there. Where
all slept when they were counted, and less has been used since than some reads cost, none runs:
what was used is the reader's own. What has only just begun to run is seen when it has used a little
more, and what blocked without that, when the sampler counts: within five seconds of any use.
"""

from __future__ import annotations

import struct

_LAYOUT = struct.Struct("<BBQ")
_VERSION = 1
OF_READERS_NS = 500_000
"""Opening and reading a file takes some 50 us of the reader's time."""


def sleep_still(slept_at_ns: int | None, now_ns: int | None) -> bool:
    """Tell whether tasks that all slept at a CPU time do so at another; None is not known."""
    if slept_at_ns is None or now_ns is None:
        return False
    return 0 <= now_ns - slept_at_ns < OF_READERS_NS


def to_bytes(slept_at_ns: int | None) -> bytes:
    """Return the block for the record; None says that some did not sleep."""
    return _LAYOUT.pack(_VERSION, int(slept_at_ns is not None), slept_at_ns or 0)


def from_bytes(block: bytes | None) -> int | None:
    """Return the CPU time of a record's block; None where there is none that is known."""
    if block is None or len(block) != _LAYOUT.size or block[0] != _VERSION:
        return None
    _, slept, at_ns = _LAYOUT.unpack(block)
    return at_ns if slept else None
