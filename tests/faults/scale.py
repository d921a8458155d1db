"""How much of the level is run."""

from __future__ import annotations

import os

SCALE = float(os.environ.get("PROCSCOPE_FAULTS_SCALE", "1"))
"""Of the counts below 1 is all, 0.1 a tenth; for short runs while something is being written."""


def scaled(count: int, least: int = 3) -> int:
    """Return `count` by the scale that was asked for."""
    return max(least, round(count * SCALE))
