"""`/proc/uptime`, as uptime_proc_show() in the kernel's `fs/proc/uptime.c` prints it."""

from __future__ import annotations

from collections.abc import Sequence

from procscope.ids import CpuId
from procscope.views.cpu_ledger import CpuLedger
from procscope.views.cpu_time import TICKS_PER_SECOND, visible_columns

_NS_PER_CENTISECOND = 10_000_000


def render(age_ns: int, ledger: CpuLedger, visible: Sequence[CpuId]) -> bytes:
    """Return the container's age and the idle time of its visible CPUs, in seconds.

    Raises ValueError where the ledger has no columns for a visible CPU.
    """
    age_cs = max(0, age_ns) // _NS_PER_CENTISECOND
    idle_ticks = sum(columns.idle for columns in visible_columns(ledger, visible))
    idle_cs = idle_ticks * 100 // TICKS_PER_SECOND
    return b"%d.%02d %d.%02d\n" % (*divmod(age_cs, 100), *divmod(idle_cs, 100))
