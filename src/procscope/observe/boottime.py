"""Times since boot, and the clock ticks in which `/proc` counts."""

from __future__ import annotations

import os
import time

NS_PER_SECOND = 1_000_000_000
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
"""USER_HZ."""
NS_PER_TICK = NS_PER_SECOND // TICKS_PER_SECOND


def boottime_ns() -> int:
    """Return CLOCK_BOOTTIME: time since boot, suspend included."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
