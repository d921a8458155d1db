"""`procscope keeper`: holds an agent's descriptors while the agent is restarted or replaced."""

from __future__ import annotations

import argparse
import os

from procscope.cli.options import add_mountpoint, add_run_directory, node_path
from procscope.daemon.config import AGENT_MOUNTPOINT, ServeConfig
from procscope.errors import ProcscopeError

DESCRIPTION = f"""\
Holds the descriptors of the agent that serves MOUNTPOINT (default {AGENT_MOUNTPOINT}), so
that whoever reads waits for the next agent and sees no error. Runs in the foreground. After SIGTERM
it ends; where no agent runs, nor comes within the patience, it takes the files away from running
containers first, and unmounts.

  procscope keeper
"""
_MAX_PATIENCE_S = 600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `keeper`."""
    add_mountpoint(parser, AGENT_MOUNTPOINT, "the one that the agent is started with")
    add_run_directory(parser)
    parser.add_argument(
        "--patience",
        type=float,
        metavar="SECONDS",
        default=5.0,
        help="how long after SIGTERM an agent may take to come (default %(default)s)",
    )
    parser.add_argument("--debug", action="store_true", help="leave nothing out of the log")


def run(args: argparse.Namespace) -> int:
    """Keep until told to end. Raises ProcscopeError."""
    from procscope.daemon import hostview, logs
    from procscope.daemon.nodekeeper import NodeKeeper

    if not 0 <= args.patience <= _MAX_PATIENCE_S:
        raise ProcscopeError(
            f"--patience {args.patience} is out of range",
            hint=f"give 0 to {_MAX_PATIENCE_S:.0f} seconds",
        )
    if os.geteuid() != 0:
        raise ProcscopeError("keeper needs root, as the agent", hint="use sudo")
    logs.configure(debug=args.debug)
    config = ServeConfig(
        mountpoint=node_path(args.mountpoint),
        run_directory=os.path.realpath(args.run_directory),
        cares_for_containers=True,
    )
    hostview.require_host_processes(args.procscope_command)
    hostview.require_shared(config.mountpoint, config.proc)
    return NodeKeeper(config, args.patience).run()
