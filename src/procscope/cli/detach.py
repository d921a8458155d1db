"""`procscope detach`: takes a container's views away."""

from __future__ import annotations

import argparse

DESCRIPTION = """\
Takes the views away from running containers, so that they see the host's files again, and with
them what a dead daemon left. It makes no difference how the views had got there.

  procscope detach --container web                    by its name, or the start of its id
  procscope detach --pid 4711 --files loadavg,uptime  only these
  procscope detach --all                              every container that runs

`procscope attach` brings them back.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `detach`."""
    from procscope.cli import attaching

    attaching.add_arguments(
        parser, files_help="only these, separated by commas; every view unless given"
    )


def run(args: argparse.Namespace) -> int:
    """Take the views away."""
    from procscope.cli import attaching
    from procscope.inject.attach import detach
    from procscope.inject.model import NamespaceResult, Source

    files = attaching.chosen_files(args) if args.files else None

    def work(chosen: attaching.Chosen, source: Source) -> NamespaceResult:
        return detach(chosen.process, source, files, container=chosen.container)

    return attaching.run(args, work, needs_daemon=False)
