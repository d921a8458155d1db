"""What the sampler tells the workers of one container, and its form in the container's record."""

from __future__ import annotations

import struct

from procscope.cgroup.model import TaskCounts
from procscope.values import frozen
from procscope.views.loadavg import Load

_LAYOUT = struct.Struct("<BQQQQQQQQ")
_VERSION = 1


@frozen
class LoadBlock:
    """One sample."""

    load: Load
    tasks: TaskCounts
    newest_pid: int
    """As the container's own PID namespace numbers it."""
    sampled_at_ns: int
    """CLOCK_BOOTTIME."""

    def to_bytes(self) -> bytes:
        """Return the block for the record."""
        return _LAYOUT.pack(
            _VERSION,
            self.load.one,
            self.load.five,
            self.load.fifteen,
            self.tasks.running,
            self.tasks.blocked,
            self.tasks.total,
            self.newest_pid,
            self.sampled_at_ns,
        )

    @classmethod
    def from_bytes(cls, block: bytes | None) -> LoadBlock | None:
        """Return the sample of a record; None where there is none that this version knows."""
        if block is None or len(block) != _LAYOUT.size or block[0] != _VERSION:
            return None
        _, one, five, fifteen, running, blocked, total, newest, at_ns = _LAYOUT.unpack(block)
        return cls(
            load=Load(one, five, fifteen),
            tasks=TaskCounts(running=running, blocked=blocked, total=total),
            newest_pid=newest,
            sampled_at_ns=at_ns,
        )
