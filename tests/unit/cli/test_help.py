"""Proves: every help text teaches by an example, is true of the options there are, and is fast."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest

from procscope.__main__ import main
from procscope.cli.commands import COMMANDS, build_parser

NAMES = [command.name for command in COMMANDS]
COMMAND_LINE = re.compile(r"procscope [^\n`…)>]*")


def help_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out


def examples(text: str) -> list[str]:
    """The command lines in a help text, without what explains them."""
    below_usage = text.partition("\n\n")[2]
    lines = COMMAND_LINE.findall(below_usage)
    return [re.split(r" {2,}", line)[0].strip() for line in lines]


def test_the_main_help_names_every_command_and_how_to_begin(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = help_of(capsys)
    for command in COMMANDS:
        assert re.search(rf"^    {command.name}\b", text, re.MULTILINE)
        assert command.help in text
    assert len(examples(text)) >= 2


@pytest.mark.parametrize("name", NAMES)
def test_each_help_has_an_example_that_the_parser_takes(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    text = help_of(capsys, name)
    shown = [line for line in examples(text) if line.split()[1] == name]
    assert shown
    parser = build_parser(lambda command: command.name == name)
    for line in shown:
        assert parser.parse_args(shlex.split(line)[1:]).procscope_command == name


@pytest.mark.parametrize("name", ["", *NAMES])
def test_each_help_fits_a_page_and_is_complete(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    text = help_of(capsys, *([name] if name else []))
    assert max(map(len, text.splitlines())) <= 100
    assert "%(" not in text
    assert "None" not in text


def test_what_stands_for_a_command_that_is_not_wanted_is_a_whole_parser() -> None:
    """Python 3.14 asks each for a formatter when it is added."""
    parser = build_parser(lambda command: False)
    (commands,) = [one for one in parser._actions if isinstance(one.choices, dict)]
    assert isinstance(commands.choices, dict)
    assert set(commands.choices) == set(NAMES)
    for one in commands.choices.values():
        assert one.format_help()


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_explained(name: str) -> None:
    parser = build_parser(lambda command: True)
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for option in action.choices[name]._actions:
                assert option.help, (name, option.dest)


HEAVY = {
    "ast",
    "asyncio",
    "ctypes",
    "dataclasses",
    "inspect",
    "json",
    "logging",
    "pathlib",
    "shutil",
    "socket",
    "subprocess",
    "typing",
    "urllib",
}
"""Each takes as long as a tenth of the interpreter's own start, or more."""


ARGPARSE = """
import argparse
argparse.ArgumentParser(formatter_class=lambda prog: argparse.HelpFormatter(prog, width=80)
).format_help()
"""
"""Whatever this release of Python imports for that is not ours to avoid."""


def imported(code: str) -> set[str]:
    """The modules that there are after `code`, in an interpreter of its own."""
    ending = "\nprint(*sys.modules)"
    told = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}{ending}"],
        capture_output=True,
        check=True,
        text=True,
    )
    return set(told.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("arguments", "layers"),
    [
        (["--version"], set[str]()),
        (["--help"], set[str]()),
        (["docker-args"], {"inject", "tree"}),
        (["docker-args", "--help"], {"inject", "tree"}),
    ],
    ids=" ".join,
)
def test_what_answers_at_once_loads_little(arguments: list[str], layers: set[str]) -> None:
    modules = imported(
        f"from procscope.__main__ import main\ntry: main({arguments!r})\nexcept SystemExit: pass"
    )
    ours = {name.split(".")[1] for name in modules if name.startswith("procscope.")}
    assert ours - {"__main__", "cli", "errors"} <= layers
    assert not modules & (HEAVY - imported(ARGPARSE))


def test_the_keeper_loads_little() -> None:
    """A daemon waits for it at its start."""
    modules = imported("import procscope.daemon.keeper")
    assert not modules & (HEAVY - {"json", "socket"})


def test_a_daemon_has_nothing_of_openssl_in_it() -> None:
    """Its library is a megabyte of each process's memory, and used for nothing but BLAKE2."""
    modules = imported("from procscope.cli.commands import prepare\nprepare(['serve'])")
    assert "procscope.daemon.supervisor" in modules
    assert not modules & {"_hashlib", "_ssl", "hashlib", "hmac", "random", "secrets"}
