"""`/proc/swaps`, in the columns of swap_show() in the kernel's `mm/swapfile.c`."""

from __future__ import annotations

from procscope.views.swap import SwapSpace
from procscope.views.text import KIB

_HEADER = b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
_FILENAME_WIDTH = 40
_WIDE_KB = 10_000_000
"""From here on the kernel leaves out the second tab after a number."""
_PRIORITY = -2
"""What the kernel gives to a machine's first swap area when nobody chose a priority."""


def render(host_swaps: bytes, swap: SwapSpace) -> bytes:
    """Return the host's header and, if there is swap space, one line that stands for all of it.

    The fixed header takes the place of one that is not the kernel's.
    """
    first_line, _, _ = host_swaps.partition(b"\n")
    header = first_line + b"\n" if first_line.split()[:1] == [b"Filename"] else _HEADER
    total_kb = swap.total_bytes // KIB
    if total_kb == 0:
        return header
    # Free space is rounded as meminfo rounds it, so that used is the same there and here.
    used_kb = total_kb - (swap.total_bytes - swap.used_bytes) // KIB
    return header + b"%-*s%s\t%s\t%s\t%d\n" % (
        _FILENAME_WIDTH,
        b"none",
        b"virtual\t",
        _number(total_kb),
        _number(used_kb),
        _PRIORITY,
    )


def _number(kb: int) -> bytes:
    return b"%d\t" % kb if kb < _WIDE_KB else b"%d" % kb
