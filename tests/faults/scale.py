"""How much of the level is run, and how slow this machine is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import cache

from tests.integration.daemons import ENVIRONMENT
from tests.integration.waiting import SLOWNESS

SCALE = float(os.environ.get("PROCSCOPE_FAULTS_SCALE", "1"))
"""Of the counts below 1 is all, 0.1 a tenth; for short runs while something is being written."""
_USUAL_START_S = 0.15
"""What an interpreter that imports the daemon takes on a machine for which the bounds are meant."""
_TRIES = 3


def scaled(count: int, least: int = 3) -> int:
    """Return `count` by the scale that was asked for."""
    return max(least, round(count * SCALE))


@cache
def slowness() -> float:
    """How many times slower than a usual machine this one starts a process, at least 1.

    Bounds on times are multiplied by it: what replaces a dead process is a process to be started.
    """
    best_s = min(_start_s() for _ in range(_TRIES))
    return max(1.0, SLOWNESS, best_s / _USUAL_START_S)


def _start_s() -> float:
    began_s = time.monotonic()
    command = (sys.executable, "-c", "import procscope.cli.serve")
    subprocess.run(command, check=True, env=os.environ | ENVIRONMENT)
    return time.monotonic() - began_s
