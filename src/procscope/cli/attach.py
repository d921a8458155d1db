"""`procscope attach`: views for containers that run already."""

from __future__ import annotations

import argparse

DESCRIPTION = """\
Gives running containers their views, from outside: nothing is restarted, and no tool is needed in
the container. A daemon (`procscope serve`) has to run on the host.

  procscope attach --container web                    by its name, or the start of its id
  procscope attach --pid 4711                         the container that process 4711 is in
  procscope attach --all                              every container that runs
  procscope attach --container web --files pressure/cpu,pressure/io,pressure/memory

It may be given again at any time: what is attached stays as it is, and what a dead daemon left is
replaced. What the container's owner has mounted over a file is left alone. A container that is
restarted has lost its views; `procscope docker-args` mounts them from the start.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `attach`."""
    from procscope.cli import attaching
    from procscope.daemon.config import DEFAULT_FILES

    attaching.add_arguments(
        parser,
        files_help="only these, separated by commas; every file unless given: "
        + ", ".join(DEFAULT_FILES),
    )


def run(args: argparse.Namespace) -> int:
    """Attach the views."""
    from procscope.cli import attaching
    from procscope.inject.attach import attach
    from procscope.inject.model import NamespaceResult, Source

    files = attaching.chosen_files(args)

    def work(chosen: attaching.Chosen, source: Source) -> NamespaceResult:
        return attach(chosen.process, source, files, container=chosen.container)

    return attaching.run(args, work, needs_daemon=True)
