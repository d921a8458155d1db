"""Proves: what a user does wrong ends with one line that helps and an exit code, no traceback."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest

from procscope import __version__
from procscope.__main__ import main
from procscope.cli import commands
from procscope.errors import ExitCode, ProcscopeError

Capture = pytest.CaptureFixture[str]


def raising(error: BaseException) -> object:
    def prepare(_arguments: list[str]) -> Callable[[], int]:
        raise error

    return prepare


def procscope(arguments: Sequence[str], stdout: int) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "procscope", *arguments],
        env={**os.environ, "PYTHONUNBUFFERED": ""},
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
        timeout=30,
    )


def one_line(capsys: Capture) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    assert "Traceback" not in captured.err
    assert captured.err.startswith("procscope: ")
    return captured.err.removeprefix("procscope: ").rstrip("\n")


def test_version(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"procscope {__version__}\n"


def test_without_a_command_the_help_is_shown(capsys: Capture) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out.startswith("usage: procscope ")


@pytest.mark.parametrize("code", ExitCode)
def test_an_error_is_one_line_with_its_hint_and_exit_code(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, code: ExitCode
) -> None:
    error = ProcscopeError("no such thing", hint="look elsewhere", exit_code=code)
    monkeypatch.setattr(commands, "prepare", raising(error))
    assert main(["show"]) == code
    assert one_line(capsys) == "no such thing: look elsewhere"


def test_for_developers_the_traceback_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROCSCOPE_TRACEBACK", "1")
    for error in (ProcscopeError("x"), FileNotFoundError(errno.ENOENT, "x")):
        monkeypatch.setattr(commands, "prepare", raising(error))
        with pytest.raises(type(error)):
            main(["show"])


def test_an_error_of_the_system_names_the_file(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = FileNotFoundError(errno.ENOENT, "No such file or directory", "/proc/self/mountinfo")
    monkeypatch.setattr(commands, "prepare", raising(error))
    # In a test the output is no descriptor that could be redirected.
    assert main(["show"]) == ExitCode.FAILED
    assert one_line(capsys) == "/proc/self/mountinfo: No such file or directory"


def test_ctrl_c_ends_as_the_shell_expects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "prepare", raising(KeyboardInterrupt()))
    assert main(["show"]) == 130


@pytest.mark.parametrize(
    "arguments",
    [
        ["bogus"],
        ["--bogus"],
        ["show", "--bogus"],
        ["show", "--pid", "x"],
        ["show", "meminfo", "--pid", "1", "--cgroup", "/"],
        ["serve", "--workers", "many"],
        ["serve", "--cpu-count", "all"],
        ["completion"],
        ["completion", "tcsh"],
        ["docker-args", "--live", "--files", "stat"],
    ],
)
def test_wrong_usage_is_2_and_shows_the_usage(capsys: Capture, arguments: Sequence[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("usage: procscope")
    assert re.search(r"^procscope.*: error: ", captured.err, re.MULTILINE)


@pytest.mark.parametrize("arguments", [["--help"], ["docker-args"], ["show", "cpuinfo"]])
def test_a_reader_that_has_seen_enough_is_no_error(arguments: list[str]) -> None:
    """As in `procscope show cpuinfo | head -1`; nor does the interpreter complain at its exit."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = procscope(arguments, writer)
    finally:
        os.close(writer)
    assert ended.returncode == 0
    assert b"Broken" not in ended.stderr
    assert b"Traceback" not in ended.stderr


@pytest.mark.parametrize("arguments", [["docker-args"], ["show", "meminfo"]])
def test_a_full_disk_is_one_line(arguments: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        ended = procscope(arguments, full.fileno())
    assert ended.returncode == ExitCode.FAILED
    assert ended.stderr.splitlines()[-1] == b"procscope: No space left on device"
    assert b"Traceback" not in ended.stderr


def test_a_closed_output_is_no_traceback() -> None:
    ended = subprocess.run(
        ["sh", "-c", '"$0" -m procscope docker-args >&-', sys.executable],
        stderr=subprocess.PIPE,
        check=False,
    )
    assert b"Traceback" not in ended.stderr
