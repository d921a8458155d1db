"""What systemd is about to do with the daemon."""

from __future__ import annotations

import subprocess

_RESTARTS = ("restart", "try-restart", "start")
_TIMEOUT_S = 10


def is_restarting(unit: str) -> bool:
    """Tell whether systemd stops `unit` only to start it again: a job of that type is queued."""
    command = ["systemctl", "list-jobs", "--no-legend", "--plain"]
    try:
        jobs = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    # The number of the job, the unit, the type, the state.
    rows = (line.split() for line in jobs.stdout.splitlines())
    return any(row[1] == unit and row[2] in _RESTARTS for row in rows if len(row) > 2)
