"""`procscope stop`: ends the daemon, its workers and its mount."""

from __future__ import annotations

import argparse

from procscope.cli.options import add_daemon, daemon_of

DESCRIPTION = """\
Ends the daemon that serves MOUNTPOINT. Running containers see the host's files from then on, and
get their own back when `procscope serve` is started again. Also ends what a daemon that was killed
has left running. Does nothing where there is none.

  procscope stop
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `stop`."""
    add_daemon(parser)
    parser.add_argument(
        "--unless-restarting",
        metavar="UNIT",
        help="do nothing where systemd is about to start this unit again",
    )


def run(args: argparse.Namespace) -> int:
    """Stop it. Raises ProcscopeError."""
    from procscope.daemon.jobs import is_restarting
    from procscope.daemon.stopping import stop
    from procscope.errors import ExitCode

    config = daemon_of(args)
    if args.unless_restarting and is_restarting(args.unless_restarting):
        print(f"{args.unless_restarting} is started again, and its workers go on serving")
        return ExitCode.OK
    print("stopped" if stop(config) else f"nothing serves {config.mountpoint}")
    return ExitCode.OK
