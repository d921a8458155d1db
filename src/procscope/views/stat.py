"""`/proc/stat`, as show_stat() in the kernel's `fs/proc/stat.c` prints it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from procscope.ids import CpuId
from procscope.views.cpu_ledger import CpuColumns, CpuLedger
from procscope.views.cpu_time import visible_columns

_HOST_CPU = re.compile(rb"cpu\d+")


def render(
    host_stat: bytes, ledger: CpuLedger, visible: Sequence[CpuId], running: int, blocked: int
) -> bytes:
    """Return the container's CPU lines and task counts among the host's other lines.

    The `cpu` line is the exact sum of the visible CPUs' lines. Each has as many columns as the
    host's line has. The reader itself is running, so `running` is shown as at least 1.

    Raises ValueError where `host_stat` does not begin with the `cpu` line, or where the ledger
    has no columns for a visible CPU.
    """
    total_line, *lines = host_stat.split(b"\n")
    total_columns = total_line.split()
    if total_columns[:1] != [b"cpu"]:
        raise ValueError(f"not a stat file: {total_line[:80]!r}")
    columns = len(total_columns) - 1
    rows = visible_columns(ledger, visible)
    form = b" ".join([b"%d"] * columns)
    shown = [b"cpu  " + form % _in_kernel_order(_total(rows), columns)]
    for cpu, row in zip(visible, rows, strict=True):
        shown.append(b"cpu%d " % cpu + form % _in_kernel_order(row, columns))
    for line in lines:
        key = line.partition(b" ")[0]
        if key == b"procs_running":
            shown.append(b"procs_running %d" % max(1, running))
        elif key == b"procs_blocked":
            shown.append(b"procs_blocked %d" % blocked)
        elif not _HOST_CPU.fullmatch(key):
            shown.append(line)
    return b"\n".join(shown)


def _total(rows: Sequence[CpuColumns]) -> CpuColumns:
    return CpuColumns(
        user=sum([row.user for row in rows]),
        nice=sum([row.nice for row in rows]),
        system=sum([row.system for row in rows]),
        idle=sum([row.idle for row in rows]),
        steal=sum([row.steal for row in rows]),
    )


def _in_kernel_order(row: CpuColumns, columns: int) -> tuple[int, ...]:
    """Return `columns` numbers; iowait, irq, softirq and those after steal are not known: 0."""
    known = (row.user, row.nice, row.system, row.idle, 0, 0, 0, row.steal)
    return (known + (0,) * (columns - len(known)))[:columns]
