"""The option `--pinned`, of commands that give a new container its files."""

from __future__ import annotations

import argparse

from procscope.tree.sources import Pinned


def add_pinned(parser: argparse.ArgumentParser) -> None:
    """Add `--pinned`."""
    parser.add_argument(
        "--pinned",
        choices=[which.value for which in Pinned],
        default=Pinned.LIMITS.value,
        help="what is taken from the pinned tree, where the kernel answers repeated reads by "
        "itself: what changes with the limits alone (limits, the default, up to 0.1 s old), "
        "all (the others up to some ms old, and not of one moment for who reads them in small "
        "pieces), none",
    )
