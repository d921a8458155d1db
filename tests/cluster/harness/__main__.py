"""python -m tests.cluster.harness: start, use and stop the cluster by hand."""

from __future__ import annotations

import argparse
import os
import sys
import time

from tests.cluster.harness import lifecycle
from tests.cluster.harness.binaries import binaries
from tests.cluster.harness.configuration import node_environment
from tests.cluster.harness.errors import ClusterError
from tests.cluster.harness.layout import Layout, layout_of


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.harness", description=__doc__)
    parser.add_argument("--name", help="which cluster (default: $PROCSCOPE_CLUSTER or `default`)")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="build Kubernetes and Helm, and stop")
    commands.add_parser("up", help="start the cluster")
    commands.add_parser("down", help="stop the cluster and remove everything of it")
    commands.add_parser("status", help="tell whether it runs; status 1 if not")
    for name, explained in (
        ("kubectl", "run kubectl"),
        ("helm", "run helm"),
        ("run", "run a command on the node, in all of its namespaces"),
        ("load", "import an image: ctr images import FILE"),
    ):
        command = commands.add_parser(name, help=explained, add_help=False)
        command.add_argument("words", nargs=argparse.REMAINDER)
    return parser


def _execute(layout: Layout, command: list[str], *, in_pid_namespace: bool = False) -> None:
    """Become the command, on the node."""
    entered = lifecycle.entered(layout, command, in_pid_namespace=in_pid_namespace)
    os.execvpe(entered[0], entered, node_environment(layout))


def _do(options: argparse.Namespace) -> int:
    layout = layout_of(options.name)
    started_s = time.monotonic()
    if options.command == "build":
        print(binaries().kubernetes)
    elif options.command == "up":
        lifecycle.up(layout)
        print(f"cluster {layout.name} is up after {time.monotonic() - started_s:.1f} s")
    elif options.command == "down":
        lifecycle.down(layout)
        print(f"cluster {layout.name} is down")
    elif options.command == "status":
        running = lifecycle.init_pid(layout) is not None
        print(f"cluster {layout.name} is {'up' if running else 'down'}")
        return 0 if running else 1
    elif options.command in ("kubectl", "helm"):
        _execute(layout, [binaries().program(options.command), *options.words])
    elif options.command == "load":
        _execute(layout, ["ctr", "--namespace=k8s.io", "images", "import", *options.words])
    else:
        _execute(layout, options.words, in_pid_namespace=True)
    return 0


def main() -> int:
    """Do what the command line says."""
    try:
        return _do(_parser().parse_args())
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
