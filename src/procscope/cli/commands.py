"""The command line as a whole: one row for each command, its module imported when it is used.

Nothing is imported here that a command does not need anyway: `typing` and `dataclasses` take as
long as the interpreter's own start.
"""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Callable

from procscope import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class CommandModule(Protocol):
        """What a module of this package has."""

        DESCRIPTION: str

        def add_arguments(self, parser: argparse.ArgumentParser) -> None:
            """Add the command's options to its parser."""
            ...

        def run(self, args: argparse.Namespace) -> int:
            """Run the command; return the exit code. Raises ProcscopeError."""
            ...


PROGRAM = "procscope"
_COLUMNS = 80
_DESCRIPTION = """\
Gives each container its own /proc/meminfo, cpuinfo, stat, uptime, loadavg, diskstats, swaps, and
/sys/devices/system/cpu: a container sees its share of the host as if it were a machine of that
size.
"""
_EPILOG = """\
To see it work:        sudo procscope run --memory 256m --cpus 1 -- free -m
To serve containers:   sudo procscope serve
With Docker:           docker run $(procscope docker-args) -m 256m …

`procscope COMMAND --help` tells more.
"""


class Command:
    """A command's name, its module in this package, and what it does in a few words."""

    __slots__ = ("help", "module", "name")

    def __init__(self, name: str, module: str, help_: str) -> None:
        self.name = name
        self.module = module
        self.help = help_

    def load(self) -> CommandModule:
        """Import the module."""
        module: Any = importlib.import_module(f"procscope.cli.{self.module}")
        loaded: CommandModule = module
        return loaded


COMMANDS = (
    Command("serve", "serve", "serve the files to all containers of this host"),
    Command("status", "status", "tell of the daemon that runs"),
    Command("reload", "reload", "replace the running daemon by the version installed now"),
    Command("stop", "stop", "end the daemon; containers see the host's files"),
    Command("agent", "agent", "serve the files to all pods of this Kubernetes node"),
    Command("keeper", "keeper", "hold an agent's mount while it is replaced"),
    Command("run", "run", "run a command as if on a small machine of its own"),
    Command("show", "show", "print what a container sees, with no mount at all"),
    Command("attach", "attach", "give running containers their views"),
    Command("detach", "detach", "take the views of running containers away"),
    Command("docker-args", "docker_args", "print the -v options for docker run"),
    Command("webhook", "webhook", "give pods their files when Kubernetes makes them"),
    Command("completion", "completion", "print a shell's completion script"),
)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line ends of descriptions, and options beside their help."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=_columns() - 2)


def _columns() -> int:
    """Return how wide the terminal is; argparse imports `shutil` to find out."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(1).columns or _COLUMNS
    except OSError:
        return _COLUMNS


def _parser_maker() -> Callable[..., argparse.ArgumentParser]:
    """Return what makes commands' parsers: of one that is not wanted only its name is needed."""
    empty = argparse.ArgumentParser(add_help=False)

    def make(command: Command | None = None, **others: Any) -> argparse.ArgumentParser:  # noqa: ANN401 - what argparse gives, by release
        """Without a command it is never used, and the same for all: to load each takes long."""
        if command is None:
            return empty
        module = command.load()
        parser = argparse.ArgumentParser(
            description=module.DESCRIPTION, formatter_class=_HelpFormatter, **others
        )
        module.add_arguments(parser)
        return parser

    return make


def prepare(arguments: list[str]) -> Callable[[], int]:
    """Parse the arguments; return what runs the command that they name and gives its exit code."""
    name = next((word for word in arguments if not word.startswith("-")), "")
    parser = build_parser(lambda command: command.name == name)
    args = parser.parse_args(arguments)
    command = next((one for one in COMMANDS if one.name == args.procscope_command), None)
    if command is None:
        return lambda: _print_help(parser)
    run = command.load().run
    return lambda: run(args)


def _print_help(parser: argparse.ArgumentParser) -> int:
    parser.print_help()
    return 0


def build_parser(wanted: Callable[[Command], bool]) -> argparse.ArgumentParser:
    """Return the parser; the options of commands that are not `wanted` are left out."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=_HelpFormatter,
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"{PROGRAM} {__version__}",
        help="print the version and end",
    )
    subparsers = parser.add_subparsers(  # type: ignore[call-overload] # it only calls parser_class
        dest="procscope_command",
        metavar="COMMAND",
        title="commands",
        prog=PROGRAM,
        parser_class=_parser_maker(),  # pyright: ignore[reportArgumentType]
    )
    for command in COMMANDS:
        subparsers.add_parser(
            command.name, help=command.help, command=command if wanted(command) else None
        )
    return parser
