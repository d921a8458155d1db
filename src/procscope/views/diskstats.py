"""`/proc/diskstats`, as diskstats_show() in the kernel's `block/genhd.c` prints it."""

from __future__ import annotations

from collections.abc import Mapping

from procscope.cgroup.model import DeviceNumber, IoCounters
from procscope.views.text import unsigned

_SECTOR_BYTES = 512
_IDENTIFYING_COLUMNS = 3
_UNUSED = IoCounters()


def render(host_diskstats: bytes, io: Mapping[DeviceNumber, IoCounters]) -> bytes:
    """Return one line for each of the host's devices that the container has used.

    Each has as many columns as the host's line: 14, with discards (4.18) 18, with flushes (5.5)
    20. A container that has used no device gets an empty file, as a machine without disks has.

    Raises ValueError where a line does not begin with two numbers and a name.
    """
    lines: list[bytes] = []
    for line in host_diskstats.splitlines():
        columns = line.split()
        if len(columns) <= _IDENTIFYING_COLUMNS:
            raise ValueError(f"not a line of diskstats: {line!r}")
        major, minor, name = unsigned(columns[0]), unsigned(columns[1]), columns[2]
        used = io.get((major, minor), _UNUSED)
        if used != _UNUSED:
            counters = _counters(used, len(columns) - _IDENTIFYING_COLUMNS)
            lines.append(b"%4d %7d %s %s\n" % (major, minor, name, counters))
    return b"".join(lines)


def _counters(used: IoCounters, columns: int) -> bytes:
    """Return the counters in the kernel's order; merges, times and in-flight are not known: 0."""
    known = (
        *(used.reads, 0, used.read_bytes // _SECTOR_BYTES, 0),
        *(used.writes, 0, used.write_bytes // _SECTOR_BYTES, 0),
        *(0, 0, 0),
        *(used.discards, 0, used.discard_bytes // _SECTOR_BYTES, 0),
    )
    unknown = (0,) * (columns - len(known))
    return b" ".join(b"%d" % number for number in (*known, *unknown)[:columns])
