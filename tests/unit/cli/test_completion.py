"""Proves: the completion scripts are valid, and offer the commands and options there are."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from procscope.__main__ import main
from procscope.cli.commands import COMMANDS
from procscope.observe.registry import VIEWS

NAMES = [command.name for command in COMMANDS]


def script(capsys: pytest.CaptureFixture[str], shell: str) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


def complete_in_bash(source: str, words: Sequence[str]) -> set[str]:
    """What bash offers for the last word: the function is called as bash would call it."""
    quoted = " ".join(f"'{word}'" for word in words)
    call = f"COMP_WORDS=({quoted})\nCOMP_CWORD={len(words) - 1}\n_procscope procscope"
    ended = subprocess.run(
        [
            "bash",
            "--norc",
            "-euc",
            f"{source}\n{call}\nprintf '%s\\n' \"${{COMPREPLY[@]-}}\"",
        ],
        capture_output=True,
        check=True,
        text=True,
    )
    assert ended.stderr == ""
    return set(ended.stdout.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_takes_the_script(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, shell: str
) -> None:
    source = script(capsys, shell)
    assert source.endswith("\n")
    assert "%(" not in source
    assert source.count("'") % 2 == 0
    assert source.count("{") == source.count("}")
    if shutil.which(shell):
        (tmp_path / "script").write_text(source)
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_and_option_is_there(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    source = script(capsys, shell)
    for word in (*NAMES, "cpu-count", "memory-swap", "mountpoint", "container", "meminfo"):
        assert word in source, word


def test_bash_completes_commands(capsys: pytest.CaptureFixture[str]) -> None:
    source = script(capsys, "bash")
    assert complete_in_bash(source, ["procscope", ""]) == {*NAMES, "--help", "--version"}
    assert complete_in_bash(source, ["procscope", "s"]) == {
        "serve",
        "show",
        "status",
        "stop",
    }
    assert complete_in_bash(source, ["procscope", "--v"]) == {"--version"}
    assert complete_in_bash(source, ["procscope", "x"]) == set()


def test_bash_completes_files_and_options_of_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    source = script(capsys, "bash")
    assert set(VIEWS) <= complete_in_bash(source, ["procscope", "show", ""])
    assert complete_in_bash(source, ["procscope", "show", "me"]) == {"meminfo"}
    assert complete_in_bash(source, ["procscope", "show", "meminfo", "--p"]) == {"--pid"}
    assert complete_in_bash(source, ["procscope", "run", "--memory"]) == {
        "--memory",
        "--memory-swap",
    }
    assert complete_in_bash(source, ["procscope", "completion", ""]) >= {"bash", "fish", "zsh"}


def test_bash_tolerates_an_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    complete_in_bash(script(capsys, "bash"), ["procscope", "bogus", "-"])


def test_zsh_says_which_command_it_completes(capsys: pytest.CaptureFixture[str]) -> None:
    source = script(capsys, "zsh")
    assert source.startswith("#compdef procscope\n")
    for option in re.findall(r"'(--[^']*)'", source):
        assert re.fullmatch(r"--[a-z-]+\[(?:[^\[\]:\\]|\\:)*\]", option), option


def test_fish_lines_are_of_its_complete_command(capsys: pytest.CaptureFixture[str]) -> None:
    for line in script(capsys, "fish").splitlines():
        assert line.startswith("complete -c procscope ")
        assert line.count("'") % 2 == 0
