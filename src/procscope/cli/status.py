"""`procscope status`: what the daemon is and does."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from procscope.cli.options import add_daemon, daemon_of

DESCRIPTION = """\
Tells of the daemon that serves MOUNTPOINT: its version, its processes, who keeps its descriptors,
and how many containers it knows. Fails where none runs.

  procscope status
  procscope status --json
"""
_PATIENCE_S = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `status`."""
    add_daemon(parser)
    parser.add_argument("--json", action="store_true", help="the same as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print it. Raises ProcscopeError."""
    from procscope.daemon import control
    from procscope.daemon.stopping import no_supervisor
    from procscope.errors import ExitCode

    config = daemon_of(args)
    status = control.ask(config.state_directory, "status", _PATIENCE_S)
    if status is None:
        raise no_supervisor(config)
    del status["ok"]
    print(json.dumps(status, indent=2) if args.json else "\n".join(_lines(status)))
    return ExitCode.OK


def _lines(status: dict[str, Any]) -> list[str]:
    """Return the status as lines for a person."""
    workers = ", ".join(str(worker["pid"]) for worker in status["workers"])
    keeper = status["keeper"]
    age_s = max(0, int(time.time() - status["started_at_s"]))
    return [
        f"procscope {status['version']} serves {status['mountpoint']}",
        f"supervisor  pid {status['pid']}, for {age_s} s, {status['reloads']} reloads",
        f"workers     {workers or 'none'}; {status['deaths']} processes had to be replaced",
        f"keeper      {'none' if keeper is None else 'pid ' + str(keeper['pid'])}",
        f"containers  {status['containers']} known",
        f"pinned tree {_pinned(status.get('pinned'))}",
    ]


def _pinned(pinned: dict[str, Any] | None) -> str:
    if pinned is None:
        return "none"
    workers = ", ".join(str(pid) for pid in pinned["workers"])
    outsiders = pinned["outsiders"]
    return f"{workers or 'not served'}; {outsiders} times walked from no container"
