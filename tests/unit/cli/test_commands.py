"""Proves: each command checks its arguments, and says what it was given and what it takes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from procscope.__main__ import main
from procscope.cli.serve import parse_files
from procscope.daemon.config import DEFAULT_FILES
from procscope.errors import ExitCode, ProcscopeError
from procscope.observe.registry import VIEWS

Capture = pytest.CaptureFixture[str]


def failed(capsys: Capture, *arguments: str, code: ExitCode = ExitCode.FAILED) -> str:
    assert main(list(arguments)) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


class TestParseFiles:
    @pytest.mark.parametrize("text", ["meminfo", "proc/meminfo", "/proc/meminfo", " meminfo "])
    def test_one(self, text: str) -> None:
        assert parse_files(text) == ("proc/meminfo",)

    def test_several_in_their_order(self) -> None:
        assert parse_files("stat,pressure/cpu, /sys/devices/system/cpu/") == (
            "proc/stat",
            "proc/pressure/cpu",
            "sys/devices/system/cpu",
        )

    def test_nothing_given_is_everything(self) -> None:
        assert parse_files("") == DEFAULT_FILES

    def test_all_that_is_offered_is_taken(self) -> None:
        assert parse_files(",".join(DEFAULT_FILES)) == DEFAULT_FILES

    @pytest.mark.parametrize("text", ["vmstat", "proc", "sys", ",", "stat,,meminfo", "../stat"])
    def test_what_is_not_served_is_refused_with_what_is(self, text: str) -> None:
        with pytest.raises(ProcscopeError, match="there is no file") as caught:
            parse_files(text)
        assert "proc/meminfo" in caught.value.hint


class TestServe:
    @pytest.mark.parametrize("workers", ["0", "-1", "65", "1000000"])
    def test_a_number_of_workers_out_of_range(self, capsys: Capture, workers: str) -> None:
        line = failed(capsys, "serve", f"--workers={workers}")
        assert line == f"procscope: --workers {workers} is out of range: give 1 to 64\n"

    def test_an_unknown_file(self, capsys: Capture) -> None:
        assert "there is no file 'vmstat'" in failed(capsys, "serve", "--files", "vmstat")

    def test_without_root_it_says_what_works(
        self, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert "serve needs root" in failed(capsys, "serve", str(tmp_path))


class TestShow:
    @pytest.mark.parametrize("arguments", [[], ["--all", "meminfo"], [""]])
    def test_one_file_or_all(self, capsys: Capture, arguments: list[str]) -> None:
        line = failed(capsys, "show", *arguments, code=ExitCode.USAGE)
        assert "one FILE, or --all" in line

    @pytest.mark.parametrize("name", ["vmstat", "proc", "../meminfo", "/etc/passwd", "/"])
    def test_an_unknown_file_is_told_with_the_known_ones(self, capsys: Capture, name: str) -> None:
        line = failed(capsys, "show", name, code=ExitCode.USAGE)
        assert f"there is no view of {name!r}: choose from cpuinfo" in line

    @pytest.mark.parametrize("pid", ["0", "-1", "4194305", "999999999999"])
    def test_an_unknown_process(self, capsys: Capture, pid: str) -> None:
        line = failed(capsys, "show", "meminfo", f"--pid={pid}")
        assert line == f"procscope: there is no process {pid}: see `ps -e` for those there are\n"

    @pytest.mark.parametrize("name", ["no-such-container", "", "/", "f" * 64])
    def test_an_unknown_container(self, capsys: Capture, name: str) -> None:
        line = failed(capsys, "show", "meminfo", "--container", name)
        assert f"no container with the id or name {name!r}: " in line

    @pytest.mark.parametrize("path", ["/no/such/cgroup", "no-such", "/../.."])
    def test_an_unknown_cgroup(self, capsys: Capture, path: str) -> None:
        assert "there is no cgroup /" in failed(capsys, "show", "meminfo", "--cgroup", path)

    @pytest.mark.parametrize(
        ("name", "path"),
        [
            ("meminfo", "/proc/meminfo"),
            ("/proc/meminfo", "/proc/meminfo"),
            ("online", "/sys/devices/system/cpu/online"),
            ("/sys/devices/system/cpu/online", "/sys/devices/system/cpu/online"),
        ],
    )
    def test_the_root_cgroup_sees_the_host(
        self, capfdbinary: pytest.CaptureFixture[bytes], name: str, path: str
    ) -> None:
        assert main(["show", name, "--cgroup", "/"]) == 0
        shown = capfdbinary.readouterr().out
        assert [line.split()[:1] for line in shown.splitlines()] == [
            line.split()[:1] for line in Path(path).read_bytes().splitlines()
        ]

    def test_all_files_have_their_name_above(
        self, capfdbinary: pytest.CaptureFixture[bytes]
    ) -> None:
        """For this process, without a mount."""
        main(["show", "--all", "--pid", str(os.getpid())])
        shown = capfdbinary.readouterr().out.decode()
        assert shown.count("==> /") == len(VIEWS) + 4
        for name in VIEWS:
            assert f"==> /proc/{name} <==\n" in shown


class TestDockerArgs:
    def test_the_words_for_docker_run(self, capsys: Capture, tmp_path: Path) -> None:
        (tmp_path / "proc").mkdir()
        assert main(["docker-args", "--mountpoint", str(tmp_path), "--files", "stat, meminfo"]) == 0
        captured = capsys.readouterr()
        assert captured.out == (
            f"-v {tmp_path}/proc/stat:/proc/stat:ro -v {tmp_path}/proc/meminfo:/proc/meminfo:ro\n"
        )
        assert captured.err == ""

    def test_live_is_the_default(self, capsys: Capture, tmp_path: Path) -> None:
        for arguments in ([], ["--live"], ["--files", ""]):
            assert main(["docker-args", "--mountpoint", str(tmp_path), *arguments]) == 0
        first, second, third = capsys.readouterr().out.splitlines()
        assert first == second == third

    def test_without_a_daemon_it_warns_beside_the_output(
        self, capsys: Capture, tmp_path: Path
    ) -> None:
        """Docker would make directories in the place of the missing files."""
        assert main(["docker-args", "--mountpoint", f"{tmp_path}/none"]) == 0
        captured = capsys.readouterr()
        assert captured.out.startswith(f"-v {tmp_path}/none/proc/")
        assert "nothing is served" in captured.err

    @pytest.mark.parametrize("served", ["proc", "sys"])
    def test_a_daemon_with_few_files_is_a_daemon(
        self, capsys: Capture, tmp_path: Path, served: str
    ) -> None:
        (tmp_path / served).mkdir()
        assert main(["docker-args", "--mountpoint", str(tmp_path)]) == 0
        assert capsys.readouterr().err == ""

    def test_a_relative_mountpoint_is_made_absolute(
        self, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert main(["docker-args", "--mountpoint", "views/", "--files", "stat"]) == 0
        assert capsys.readouterr().out == f"-v {tmp_path}/views/proc/stat:/proc/stat:ro\n"

    def test_what_docker_would_refuse(self, capsys: Capture, tmp_path: Path) -> None:
        line = failed(capsys, "docker-args", "--files", "stat,pressure/cpu")
        assert "a container cannot be given 'pressure/cpu' when it is made: choose from" in line
        assert "without spaces" in failed(capsys, "docker-args", "--mountpoint", "/a b")


class TestAttachAndDetach:
    @pytest.mark.parametrize("command", ["attach", "detach"])
    def test_without_root(
        self, capsys: Capture, monkeypatch: pytest.MonkeyPatch, command: str
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        line = failed(capsys, command, "--all")
        assert line == f"procscope: {command} needs root to enter containers: use sudo\n"

    @pytest.mark.parametrize("command", ["attach", "detach"])
    def test_an_unknown_file(self, capsys: Capture, command: str) -> None:
        line = failed(capsys, command, "--pid", "1", "--files", "stat,vmstat")
        assert "there is no file 'vmstat' to serve: choose from proc/cpuinfo" in line

    @pytest.mark.parametrize("command", ["attach", "detach"])
    @pytest.mark.parametrize("which", [[], ["--all", "--pid", "1"], ["--pid", "web"]])
    def test_one_way_to_choose(self, capsys: Capture, command: str, which: list[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            main([command, *which])
        assert caught.value.code == ExitCode.USAGE
        assert f"procscope {command}: error: " in capsys.readouterr().err

    def test_no_daemon(
        self, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        line = failed(capsys, "attach", "--all", "--mountpoint", str(tmp_path))
        assert f"no daemon serves at {tmp_path}: start `procscope serve`" in line
