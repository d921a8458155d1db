"""`procscope reload`: replaces the running code by the version that is installed now."""

from __future__ import annotations

import argparse

from procscope.cli.options import add_daemon, daemon_of

DESCRIPTION = """\
Replaces the code of the running daemon by the version that is installed now. No read fails or
waits for it, mounts and open files stay, and so does the daemon's pid. The new version is tried
first: if it does not come up, the old one goes on, and this command says why and fails.

  procscope reload
"""
_PATIENCE_S = 90.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `reload`."""
    add_daemon(parser)


def run(args: argparse.Namespace) -> int:
    """Reload it. Raises ProcscopeError."""
    from procscope.daemon import control
    from procscope.daemon.stopping import no_supervisor
    from procscope.errors import ExitCode

    config = daemon_of(args)
    reply = control.ask(config.state_directory, "reload", _PATIENCE_S)
    if reply is None:
        raise no_supervisor(config)
    print(f"version {reply.get('version')} serves {config.mountpoint}")
    return ExitCode.OK
