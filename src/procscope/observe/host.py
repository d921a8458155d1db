"""The host's own files, kept open, and re-read only when what was read is older than a moment.

One snapshot serves all containers that ask within that moment: `/proc/stat` and `/proc/cpuinfo`
are expensive on hosts with many CPUs.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from procscope.ids import CpuId
from procscope.linux.cpulist import parse_cpulist

_NS_PER_MS = 1_000_000
MOVING_NS = 5 * _NS_PER_MS
"""How long a snapshot of a file with moving counters is good."""
STEADY_NS = 500 * _NS_PER_MS
"""How long one of what changes with hotplug or by an administrator's hand is good."""
_FIRST_READ_BYTES = 65536


@dataclass(slots=True)
class _Snapshot:
    fd: int
    content: bytes
    read_at_ns: int


class HostFiles:
    """Reads files below the host's `/proc` and `/sys`."""

    def __init__(self, proc: str = "/proc", sys: str = "/sys") -> None:
        self.proc = proc
        self.sys = sys
        self._snapshots: dict[str, _Snapshot] = {}
        self._online_text = b""
        self._online: tuple[CpuId, ...] = ()

    def read_proc(self, name: str, *, max_age_ns: int = MOVING_NS) -> bytes:
        """Return `/proc/NAME`, at most `max_age_ns` old. Raises OSError."""
        return self._read(f"{self.proc}/{name}", max_age_ns)

    def read_sys(self, name: str, *, max_age_ns: int = STEADY_NS) -> bytes:
        """Return `/sys/NAME`, at most `max_age_ns` old. Raises OSError."""
        return self._read(f"{self.sys}/{name}", max_age_ns)

    def online_cpus(self) -> tuple[CpuId, ...]:
        """Return the CPUs that are online, sorted. Raises OSError, ValueError."""
        text = self.read_sys("devices/system/cpu/online")
        if text != self._online_text:
            self._online = parse_cpulist(text.decode("ascii"))
            self._online_text = text
        return self._online

    def overcommit_ratio(self) -> int:
        """Return `vm.overcommit_ratio` in per cent; the kernel's default where it is unreadable."""
        try:
            return int(self.read_proc("sys/vm/overcommit_ratio", max_age_ns=STEADY_NS))
        except (OSError, ValueError):
            return 50

    def close(self) -> None:
        """Close every file that is kept open."""
        for snapshot in self._snapshots.values():
            os.close(snapshot.fd)
        self._snapshots.clear()

    def _read(self, path: str, max_age_ns: int) -> bytes:
        now_ns = time.monotonic_ns()
        snapshot = self._snapshots.get(path)
        if snapshot is None:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            snapshot = self._snapshots[path] = _Snapshot(fd, b"", now_ns - max_age_ns - 1)
        if now_ns - snapshot.read_at_ns > max_age_ns:
            snapshot.content = read_whole(snapshot.fd, max(len(snapshot.content) + 1024, 4096))
            snapshot.read_at_ns = now_ns
        return snapshot.content


def read_whole(fd: int, size_hint: int = _FIRST_READ_BYTES) -> bytes:
    """Return a kernel-made file whole, from offset 0, without a seek. Raises OSError.

    seq_file fills at most one buffer for each read, so that a short read is not the end.
    """
    parts: list[bytes] = []
    offset = 0
    while part := os.pread(fd, size_hint, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)
