"""`procscope agent`: the daemon of a Kubernetes node."""

from __future__ import annotations

import argparse

from procscope.cli import serve
from procscope.cli.options import add_mountpoint, node_path
from procscope.daemon.config import AGENT_MOUNTPOINT, Keeping

DESCRIPTION = f"""\
Serves the files to all pods of a node, as `procscope serve` does, from a pod of its own: mounts at
MOUNTPOINT (default {AGENT_MOUNTPOINT}), which is made if it is missing. Takes over from an
agent that runs, which then stands by and serves again should this one vanish. What `procscope
keeper` holds outlives it. SIGTERM ends it; where there is no keeper, containers see the host's
files from then on. The pod has to be privileged, with hostPID, the node's /sys/fs/cgroup, the run
directory, and the folder above MOUNTPOINT with mountPropagation Bidirectional.

  procscope agent --listen :9464      then: /healthz, /readyz, /metrics
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `agent`."""
    add_mountpoint(parser, AGENT_MOUNTPOINT, "an empty directory, or one that is missing")
    serve.add_serving_options(parser, idmapped_mounts=True)
    parser.add_argument(
        "--listen",
        metavar="ADDRESS:PORT",
        default="",
        help="answer /healthz, /readyz and /metrics there by HTTP; :9464 is every address",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop. Raises ProcscopeError."""
    from procscope.cgroup.hierarchy import discover
    from procscope.daemon import hostview
    from procscope.daemon.agent import NodeAgent
    from procscope.linux.address import Address
    from procscope.linux.mountinfo import read_mountinfo

    listen = Address.parse(args.listen) if args.listen else None
    config = serve.config_of(
        args,
        node_path(args.mountpoint),
        keeper=Keeping.EXTERNAL,
        yields=True,
        makes_mountpoint=True,
    )
    hostview.require_host_processes(args.procscope_command)
    hostview.join_host(config.proc)
    hostview.require_host_cgroups(discover(read_mountinfo(config.proc)))
    hostview.require_shared(config.mountpoint, config.proc)
    return NodeAgent(config, listen).run()
