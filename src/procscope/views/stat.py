"""`/proc/stat`, as show_stat() in the kernel's `fs/proc/stat.c` prints it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from procscope.ids import CpuId
from procscope.views.cpu_ledger import CpuColumns, CpuLedger
from procscope.views.cpu_time import visible_columns

_HOST_CPU = re.compile(rb"cpu\d+(?= |\n|\Z)")
_KNOWN_COLUMNS = b"%d %d %d %d 0 0 0 %d"
"""iowait, irq and softirq are not known, and neither is what comes after steal: 0."""


def render(
    host_stat: bytes, ledger: CpuLedger, visible: Sequence[CpuId], running: int, blocked: int
) -> bytes:
    """Return the container's CPU lines and task counts among the host's other lines.

    The `cpu` line is the exact sum of the visible CPUs' lines. Each has as many columns as the
    host's line has. The reader itself is running, so `running` is shown as at least 1.

    Raises ValueError where `host_stat` does not begin with the `cpu` line, or where the ledger
    has no columns for a visible CPU.
    """
    total_line, _, rest = host_stat.partition(b"\n")
    total_columns = total_line.split()
    if total_columns[:1] != [b"cpu"]:
        raise ValueError(f"not a stat file: {total_line[:80]!r}")
    columns = len(total_columns) - 1
    form = _KNOWN_COLUMNS + b" 0" * (columns - 8)
    rows = visible_columns(ledger, visible)
    shown = [b"cpu  " + _line(form, _total(rows), columns)]
    for cpu, row in zip(visible, rows, strict=True):
        shown.append(b"cpu%d " % cpu + _line(form, row, columns))
    others = _counted(_without_cpus(rest), b"procs_running ", max(1, running))
    shown.append(_counted(others, b"procs_blocked ", blocked))
    return b"\n".join(shown)


def _without_cpus(lines: bytes) -> bytes:
    """Return the lines that are of no CPU. A host has many, and theirs come first, all together."""
    last = lines.rfind(b"\ncpu") + 1
    end = lines.find(b"\n", last) + 1
    are_first = end and lines.count(b"\n", 0, end) == lines.count(b"\ncpu", 0, end) + 1
    if are_first and _HOST_CPU.match(lines) and _HOST_CPU.match(lines, last):
        return lines[end:]
    return b"\n".join([line for line in lines.split(b"\n") if not _HOST_CPU.match(line)])


def _counted(lines: bytes, name: bytes, count: int) -> bytes:
    """Return the lines with this count in the place of that name's."""
    begin = 0 if lines.startswith(name) else lines.find(b"\n" + name) + 1
    if not lines.startswith(name, begin):
        return lines
    end = lines.find(b"\n", begin)
    return b"%b%b%d%b" % (lines[:begin], name, count, lines[end:] if end >= 0 else b"")


def _line(form: bytes, row: CpuColumns, columns: int) -> bytes:
    line = form % row
    return line if columns >= 8 else b" ".join(line.split()[:columns])


def _total(rows: Sequence[CpuColumns]) -> CpuColumns:
    return CpuColumns(*map(sum, zip(*rows, strict=True)))
