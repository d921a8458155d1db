"""`procscope docker-args`: the `-v` options for `docker run`."""

from __future__ import annotations

import argparse
import os
import sys

from procscope.errors import ExitCode
from procscope.inject.docker import DEFAULT_FILES, MOUNTABLE, volume_options

DESCRIPTION = """\
Prints the options that mount the views into a container, for use in a command line:

  docker run $(procscope docker-args) -m 256m --cpus 1 debian free -m

The same options serve podman and nerdctl. A daemon (`procscope serve`) has to run on the host.
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
        "open: the default",
    )
    which.add_argument(
        "--files",
        metavar="LIST",
        default="",
        help="only these, separated by commas: " + ", ".join(MOUNTABLE),
    )


def run(args: argparse.Namespace) -> int:
    """Print the options on one line."""
    files = [word.strip() for word in args.files.split(",") if word.strip()]
    mountpoint = os.path.abspath(args.mountpoint)
    print(" ".join(volume_options(mountpoint, files or DEFAULT_FILES)))
    if not any(os.path.isdir(os.path.join(mountpoint, name)) for name in ("proc", "sys")):
        print(
            f"procscope: nothing is served at {mountpoint} yet: start `procscope serve` first",
            file=sys.stderr,
        )
    return ExitCode.OK
