"""`procscope run`: a command in a sandbox that sees itself as a machine of its size."""

from __future__ import annotations

import argparse
import sys

from procscope.cli.pinning import add_pinned

DESCRIPTION = """\
Run a command in a new cgroup and in PID, mount, UTS and IPC namespaces of its own, with its
limits shown by its own /proc and /sys. It uses the files of this machine. A running daemon
serves the views; without one, one is brought up until the command ends.

  procscope run --memory 256m --cpus 1 -- free -m
  procscope run -m 1g --cpuset-cpus 0-1 --name build -- make -j
  procscope run -m 512m --memory-swap 512m -- bash      (no swap)

Ends with the command's exit code, 128 + N if signal N killed it, 127 if it was not found, 126 if
it could not be executed, and 125 if procscope itself failed. When the command ends, so does
whatever it has left running. Without root it runs in a user namespace, and is limited where a
cgroup v2 is delegated to you, as in a systemd user session.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `procscope run`, named as those of `docker run`."""
    # argparse would show a command with arguments as `...`.
    parser.usage = "%(prog)s [options] -- COMMAND [ARGUMENT ...]"
    limits = parser.add_argument_group("limits", "sizes: a number and b, k, m, g, t or p")
    limits.add_argument("-m", "--memory", metavar="SIZE", help="memory limit, as in 256m or 1.5g")
    limits.add_argument(
        "--memory-swap",
        metavar="SIZE",
        help="memory and swap together, -1 for no limit on swap (default: twice --memory)",
    )
    limits.add_argument(
        "--cpus",
        metavar="N",
        help="how much CPU time, as in 1.5 CPUs; unless --cpuset-cpus names them, as many CPUs as "
        "that needs are chosen",
    )
    limits.add_argument("--cpuset-cpus", metavar="LIST", help="which CPUs, as in 0-1,3")
    add_pinned(parser)
    parser.add_argument("--name", help="name of the sandbox and its cgroup (default: a new one)")
    parser.add_argument("--hostname", metavar="NAME", help="host name that the command sees")
    parser.add_argument("-w", "--workdir", metavar="DIR", help="directory to start the command in")
    parser.add_argument(
        "-e",
        "--env",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="set an environment variable; may be repeated",
    )
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="command and arguments"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code. Raises ProcscopeError."""
    from procscope.daemon.session import views_for_run
    from procscope.errors import ExitCode, ProcscopeError
    from procscope.sandbox.launch import find_privileges, run_sandbox
    from procscope.sandbox.spec import RunOptions, build_spec, read_host
    from procscope.tree.sources import Pinned

    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    options = RunOptions(
        command=tuple(command),
        memory=args.memory,
        memory_swap=args.memory_swap,
        cpus=args.cpus,
        cpuset_cpus=args.cpuset_cpus,
        name=args.name,
        hostname=args.hostname,
        workdir=args.workdir,
        env=tuple(args.env),
    )
    try:
        spec = build_spec(options, read_host())
        privileges = find_privileges(tuple(sys.argv[1:]))
        pinned = Pinned(args.pinned)
        return run_sandbox(spec, privileges, views_for_run, _warn, pinned=pinned)
    except ProcscopeError as error:
        if error.exit_code in (ExitCode.FAILED, ExitCode.USAGE):
            error.exit_code = ExitCode.RUN_FAILED
        raise


def _warn(line: str) -> None:
    print(f"procscope run: {line}", file=sys.stderr)
