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
    # A host has many CPUs, and their lines come first.
    begin = 0
    while rest.startswith(b"cpu", begin) and (end := rest.find(b"\n", begin)) >= 0:
        if not _HOST_CPU.match(rest, begin):
            break
        begin = end + 1
    for line in rest[begin:].split(b"\n"):
        if line.startswith(b"procs_running "):
            shown.append(b"procs_running %d" % max(1, running))
        elif line.startswith(b"procs_blocked "):
            shown.append(b"procs_blocked %d" % blocked)
        elif not line.startswith(b"cpu") or not _HOST_CPU.match(line):
            shown.append(line)
    return b"\n".join(shown)


def _line(form: bytes, row: CpuColumns, columns: int) -> bytes:
    line = form % (row.user, row.nice, row.system, row.idle, row.steal)
    return line if columns >= 8 else b" ".join(line.split()[:columns])


def _total(rows: Sequence[CpuColumns]) -> CpuColumns:
    return CpuColumns(
        user=sum([row.user for row in rows]),
        nice=sum([row.nice for row in rows]),
        system=sum([row.system for row in rows]),
        idle=sum([row.idle for row in rows]),
        steal=sum([row.steal for row in rows]),
    )
