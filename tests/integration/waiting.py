"""Waiting for a condition, never for a time; and how slow this machine is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

import procscope

SLOWNESS = float(os.environ.get("PROCSCOPE_TEST_SLOWNESS", "1"))
"""How many times slower than a usual machine this one is said to be; emulated ones are 10 to 20."""
BOUND_S = 2.5
"""The bound of a wait; it only decides how soon a test that fails says so."""
STEP_S = 0.005
SOURCES = str(Path(procscope.__file__).parents[1])
_USUAL_START_S = 0.15
"""What an interpreter that imports the daemon takes on a machine for which the bounds are meant."""
_TRIES = 3
_MARGIN = 2
"""A slow machine is not evenly slow."""

T = TypeVar("T")


def fewer(count: int, least: int) -> int:
    """Return how many of `count` repetitions a machine as slow as this one is to make."""
    return max(least, round(count / SLOWNESS))


@cache
def slowness() -> float:
    """How many times slower than a usual machine this one starts a process, at least 1.

    Bounds on times are multiplied by it: what replaces a dead process is a process to be started.
    """
    return _slowness_now()


def _slowness_now() -> float:
    best_s = min(_start_s() for _ in range(_TRIES))
    return max(1.0, SLOWNESS, best_s / _USUAL_START_S)


def _start_s() -> float:
    began_s = time.monotonic()
    command = (sys.executable, "-c", "import procscope.cli.serve")
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": SOURCES})
    return time.monotonic() - began_s


def eventually(condition: Callable[[], T], bound_s: float = BOUND_S) -> T:
    """Return the first true value of `condition`; a test that waits in vain fails.

    The bound is that of a usual machine. Where it is not enough, the machine is looked at: what is
    slow now was perhaps quick before.
    """
    began = time.monotonic()
    is_last = False
    while not (value := condition()):
        if time.monotonic() > began + bound_s:
            assert not is_last, f"waited in vain for {condition}"
            is_last = True
            bound_s *= _MARGIN * _slowness_now()
        time.sleep(STEP_S)
    return value
