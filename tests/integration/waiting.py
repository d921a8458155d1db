"""Waiting for a condition, never for a time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

SLOWNESS = float(os.environ.get("PROCSCOPE_TEST_SLOWNESS", "1"))
"""How many times slower than a usual machine this one is; an emulated one is 10 to 20."""
BOUND_S = 2.5
"""The bound of a wait; it only decides how soon a test that fails says so."""
STEP_S = 0.005

T = TypeVar("T")


def eventually(condition: Callable[[], T], bound_s: float = BOUND_S) -> T:
    """Return the first true value of `condition`; a test that waits in vain fails."""
    deadline = time.monotonic() + bound_s * SLOWNESS
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited in vain for {condition}"
        time.sleep(STEP_S)
