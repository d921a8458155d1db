"""`procscope docker-args`: the `-v` options for `docker run`."""

from __future__ import annotations

import argparse
import os
import sys

from procscope.cli.pinning import add_pinned
from procscope.errors import ExitCode
from procscope.inject.docker import DEFAULT_FILES, MOUNTABLE, volume_options
from procscope.tree.sources import Pinned, available

DESCRIPTION = """\
Prints the options that mount the views into a container, for use in a command line:

  docker run $(procscope docker-args) -m 256m --cpus 1 debian free -m

The same options serve podman and nerdctl. A daemon (`procscope serve`) has to run on the host.
Unless told, the files that change with the limits alone are taken from the pinned tree: the kernel
answers most reads of them by itself.
"""
_DEFAULT_MOUNTPOINT = "/var/lib/procscope"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `docker-args`."""
    parser.add_argument(
        "--mountpoint",
        metavar="DIR",
        default=_DEFAULT_MOUNTPOINT,
        help="where the daemon serves (default %(default)s)",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--live",
        action="store_true",
        help="every file that can be mounted, from the live tree, which chooses the view at each "
        "open: as --pinned none",
    )
    which.add_argument(
        "--files",
        metavar="LIST",
        default="",
        help="only these, separated by commas: " + ", ".join(MOUNTABLE),
    )
    add_pinned(parser)


def run(args: argparse.Namespace) -> int:
    """Print the options on one line."""
    files = [word.strip() for word in args.files.split(",") if word.strip()]
    mountpoint = os.path.abspath(args.mountpoint)
    pinned = available(mountpoint, Pinned.NONE if args.live else Pinned(args.pinned))
    print(" ".join(volume_options(mountpoint, files or DEFAULT_FILES, pinned)))
    if not any(os.path.isdir(os.path.join(mountpoint, name)) for name in ("proc", "sys")):
        print(
            f"procscope: nothing is served at {mountpoint} yet: start `procscope serve` first",
            file=sys.stderr,
        )
    return ExitCode.OK
