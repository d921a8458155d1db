"""Options that several commands have in common."""

from __future__ import annotations

import argparse

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
