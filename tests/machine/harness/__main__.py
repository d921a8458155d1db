"""python3 -m tests.machine.harness: run a command or a shell in a machine, by hand."""

import argparse
import sys
import time
from pathlib import Path

from tests.machine.harness.errors import MachineError
from tests.machine.harness.guest_tests import copy_project, follow
from tests.machine.harness.machine import Machine, boot_files
from tests.machine.harness.shell import interactive_shell
from tests.machine.harness.spec import MachineSpec


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m tests.machine.harness", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run one command and print its output")
    shell = commands.add_parser("shell", help="an interactive root shell")
    build = commands.add_parser("build", help="build what a machine boots from, and stop")
    for command in (run, shell, build):
        command.add_argument("--suite", default="trixie", help="Debian suite (default: trixie)")
        command.add_argument("--kernel-suite", help="suite of the kernel, if another")
        command.add_argument(
            "--package",
            action="append",
            default=[],
            metavar="NAME",
            help="one more Debian package in the machine; may be repeated",
        )
    for command in (run, shell):
        command.add_argument("--cpus", type=int, default=4)
        command.add_argument("--memory", type=int, default=1024, metavar="MIB")
        command.add_argument("--swap", type=int, default=0, metavar="MIB")
        command.add_argument("--scratch", type=int, default=512, metavar="MIB")
        command.add_argument("--numa", type=int, default=1, metavar="NODES")
        command.add_argument("--systemd", action="store_true", help="boot systemd")
        command.add_argument("--kernel-arg", action="append", default=[], metavar="WORD")
        command.add_argument("--copy", action="append", default=[], metavar="HOST:GUEST")
        command.add_argument(
            "--project",
            action="store_true",
            help="copy the sources to /opt/procscope first",
        )
    run.add_argument("--user", help="run as this user (`tester` exists)")
    run.add_argument("--timeout", type=float, default=600, metavar="SECONDS")
    run.add_argument("argv", nargs="+", metavar="COMMAND", help="one word: a /bin/sh command line")
    return parser


def _spec(options: argparse.Namespace) -> MachineSpec:
    return MachineSpec(
        suite=options.suite,
        kernel_suite=options.kernel_suite,
        cpus=options.cpus,
        memory_mib=options.memory,
        swap_mib=options.swap,
        scratch_mib=options.scratch,
        systemd=options.systemd,
        numa_nodes=options.numa,
        kernel_args=tuple(options.kernel_arg),
        packages=tuple(options.package),
    )


def _use(options: argparse.Namespace) -> int:
    spec = _spec(options)
    boot_files(spec)
    with Machine(spec, terminal=options.command == "shell") as machine:
        print(f"{machine.kernel_release} up in {machine.boot_seconds:.1f} s", file=sys.stderr)
        if options.project:
            copy_project(machine)
        for pair in options.copy:
            source, _, target = pair.partition(":")
            machine.copy_in(Path(source), target)
        if options.command == "shell":
            interactive_shell(machine)
            return 0
        argv: list[str] | str = options.argv
        process = machine.spawn(argv[0] if len(argv) == 1 else argv, user=options.user)
        status = follow(process, timeout_s=options.timeout).status
    return status if status >= 0 else 128 - status


def main() -> int:
    """The exit status of the command in the machine; 1 if there was no machine to run it in."""
    options = _parser().parse_args()
    try:
        if options.command == "build":
            started = time.monotonic()
            spec = MachineSpec(
                suite=options.suite,
                kernel_suite=options.kernel_suite,
                packages=tuple(options.package),
            )
            print(boot_files(spec).root_image, f"{time.monotonic() - started:.1f} s")
            return 0
        return _use(options)
    except MachineError as error:
        print(f"machine: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
