"""Options that several commands have in common."""

from __future__ import annotations

import argparse
import os

from procscope.daemon.config import DEFAULT_MOUNTPOINT, DEFAULT_RUN_DIRECTORY, ServeConfig
from procscope.errors import ProcscopeError
from procscope.views.cpus import CpuCount


def add_cpu_count(parser: argparse.ArgumentParser) -> None:
    """Add `--cpu-count`."""
    parser.add_argument(
        "--cpu-count",
        choices=[count.name.lower() for count in CpuCount],
        default=CpuCount.QUOTA.name.lower(),
        help="how many CPUs a container sees: its CPU quota rounded up within its cpuset "
        "(quota, the default), or all of its cpuset (cpuset)",
    )


def cpu_count(args: argparse.Namespace) -> CpuCount:
    """Return what `--cpu-count` says."""
    return CpuCount[str(args.cpu_count).upper()]


def add_mountpoint(parser: argparse.ArgumentParser, default: str, help_: str) -> None:
    """Add the argument MOUNTPOINT, which may be left out."""
    parser.add_argument("mountpoint", nargs="?", metavar="MOUNTPOINT", default=default, help=help_)


def add_daemon(parser: argparse.ArgumentParser) -> None:
    """Add what tells one daemon of this host from another."""
    add_mountpoint(
        parser,
        DEFAULT_MOUNTPOINT,
        "the one that the daemon was started with (default %(default)s)",
    )
    add_run_directory(parser)


def add_run_directory(parser: argparse.ArgumentParser) -> None:
    """Add `--run-directory`."""
    parser.add_argument(
        "--run-directory",
        metavar="DIR",
        default=DEFAULT_RUN_DIRECTORY,
        help="where state is kept that outlives a process (default %(default)s)",
    )


def node_path(mountpoint: str) -> str:
    """Return the path by which the kernel names a mount at `mountpoint`: without links.

    What is mounted there is not asked: nobody may serve it, and it would not answer.
    """
    folder, name = os.path.split(os.path.abspath(mountpoint))
    return os.path.join(os.path.realpath(folder), name)


def daemon_of(args: argparse.Namespace) -> ServeConfig:
    """Return what is known of the daemon that the options name. Raises ProcscopeError."""
    if os.geteuid() != 0:
        raise ProcscopeError(f"{args.procscope_command} needs root, as the daemon", hint="use sudo")
    return ServeConfig(
        mountpoint=os.path.realpath(args.mountpoint),
        run_directory=os.path.realpath(args.run_directory),
    )
