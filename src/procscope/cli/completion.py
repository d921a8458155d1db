"""`procscope completion SHELL`: a completion script, made from the commands' own parsers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from procscope.cli.commands import COMMANDS, PROGRAM, build_parser
from procscope.errors import ExitCode
from procscope.observe.registry import VIEWS
from procscope.values import frozen

DESCRIPTION = """\
Prints the completion script of a shell:

  bash   source <(procscope completion bash)
  zsh    procscope completion zsh > "${fpath[1]}/_procscope"
  fish   procscope completion fish > ~/.config/fish/completions/procscope.fish
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `completion`."""
    parser.add_argument("shell", choices=sorted(_SCRIPTS), help="the shell to complete in")


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    print(_SCRIPTS[args.shell](list(_commands())), end="")
    return ExitCode.OK


@frozen
class _Command:
    """What is completed after one command's name."""

    name: str
    help: str
    options: tuple[tuple[str, str], ...]
    """Long option and its help."""
    words: tuple[str, ...]
    """Arguments that are not options."""


def _commands() -> Iterator[_Command]:
    parser = build_parser(lambda command: True)
    subparsers = next(
        action.choices
        for action in parser._actions  # noqa: SLF001 - argparse has no public way to its options
        if isinstance(action, argparse._SubParsersAction)  # noqa: SLF001
    )
    for command in COMMANDS:
        subparser = subparsers[command.name]
        options: list[tuple[str, str]] = []
        words: list[str] = list(VIEWS) if command.name == "show" else []
        for action in subparser._actions:  # noqa: SLF001
            long = next((text for text in action.option_strings if text.startswith("--")), "")
            if long:
                options.append((long, _one_line((action.help or "") % vars(action))))
            elif action.choices:
                words += map(str, action.choices)
        yield _Command(command.name, command.help, tuple(options), tuple(words))


def _one_line(text: str) -> str:
    """Return what fits beside an option, without what would end a quoted word of a script."""
    return " ".join(text.replace("'", "").replace("\\", "").split())[:72]


def _bash(commands: list[_Command]) -> str:
    cases = "".join(
        f"        {one.name}) words='"
        + " ".join((*one.words, *(option for option, _ in one.options)))
        + "' ;;\n"
        for one in commands
    )
    names = " ".join(one.name for one in commands)
    return f"""\
_{PROGRAM}() {{
    local words current=${{COMP_WORDS[COMP_CWORD]}}
    case ${{COMP_WORDS[1]}} in
{cases}        *) words='{names} --help --version' ;;
    esac
    [ "$COMP_CWORD" -gt 1 ] || words='{names} --help --version'
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}}
complete -o default -F _{PROGRAM} {PROGRAM}
"""


def _zsh(commands: list[_Command]) -> str:
    names = "".join(f"        '{one.name}:{_one_line(one.help)}'\n" for one in commands)
    cases = "".join(
        f"        {one.name}) _arguments "
        + " ".join(f"'{option}[{_bracketed(help_)}]'" for option, help_ in one.options)
        + (f" '*:argument:({' '.join(one.words)})'" if one.words else " '*:file:_files'")
        + " ;;\n"
        for one in commands
    )
    return f"""\
#compdef {PROGRAM}
_{PROGRAM}() {{
    local -a commands=(
{names}    )
    if (( CURRENT == 2 )); then
        _describe command commands
        return
    fi
    case $words[2] in
{cases}    esac
}}
_{PROGRAM} "$@"
"""


def _bracketed(text: str) -> str:
    return text.replace("[", "(").replace("]", ")").replace(":", "\\:")


def _fish(commands: list[_Command]) -> str:
    lines = [f"complete -c {PROGRAM} -n __fish_use_subcommand -l version -d 'print the version'"]
    for one in commands:
        lines.append(
            f"complete -c {PROGRAM} -f -n __fish_use_subcommand -a {one.name} "
            f"-d '{_one_line(one.help)}'"
        )
        after = f"complete -c {PROGRAM} -n '__fish_seen_subcommand_from {one.name}'"
        lines += [f"{after} -l {option[2:]} -d '{help_}'" for option, help_ in one.options]
        if one.words:
            lines.append(f"{after} -f -a '{' '.join(one.words)}'")
    return "\n".join(lines) + "\n"


_SCRIPTS = {"bash": _bash, "fish": _fish, "zsh": _zsh}
