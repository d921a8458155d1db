"""What a user can do wrong on the command line: an exit code and one line that says what to do."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.agents import agent
from tests.integration.cgroups import container
from tests.integration.daemons import Daemon, folder, procscope_command
from tests.integration.files import meminfo_of

MIB = 1 << 20


def assert_refused(ended: subprocess.CompletedProcess[str], *words: str, code: int = 1) -> None:
    """One line on stderr with these words, nothing on stdout, no traceback."""
    assert ended.returncode == code, ended.stderr
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith("procscope: ")
    for word in words:
        assert word in line


@pytest.fixture
def place() -> Iterator[Path]:
    with folder() as path:
        yield path


def serve(
    place: Path, *options: str, prefix: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    run_directory = ("--run-directory", str(place.parent / f"{place.name}-run"))
    try:
        return procscope_command("serve", str(place), *run_directory, *options, prefix=prefix)
    finally:
        shutil.rmtree(place.parent / f"{place.name}-run", ignore_errors=True)


def in_a_mount_namespace(script: str) -> tuple[str, ...]:
    """A prefix that runs a command with other mounts."""
    return ("unshare", "-m", "sh", "-ec", f'{script}; exec "$@"', "-")


def test_without_root(place: Path) -> None:
    assert_refused(procscope_command("serve", str(place), as_nobody=True), "needs root", "sudo")


def test_without_the_device(place: Path) -> None:
    prefix = in_a_mount_namespace("mount -t tmpfs tmpfs /dev")
    assert_refused(serve(place, prefix=prefix), "/dev/fuse", "No such file", "modprobe fuse")


def test_with_another_device_in_its_place(place: Path) -> None:
    prefix = in_a_mount_namespace("mount --bind /dev/null /dev/fuse")
    assert_refused(serve(place, prefix=prefix), str(place))


def test_a_missing_mountpoint(place: Path) -> None:
    assert_refused(serve(place / "missing"), f"{place}/missing does not exist", "mkdir")


def test_a_file_as_mountpoint(place: Path) -> None:
    (place / "file").touch()
    assert_refused(serve(place / "file"), "is not a directory")


def test_a_mountpoint_that_is_not_empty(place: Path) -> None:
    (place / "something").mkdir()
    assert_refused(serve(place), "is not empty (something, …)")


def test_a_mountpoint_with_another_filesystem(place: Path) -> None:
    prefix = in_a_mount_namespace(f"mount -t tmpfs tmpfs {place}")
    assert_refused(serve(place, prefix=prefix), "has another filesystem mounted on it", "umount")


def test_a_mountpoint_that_is_served(served: Daemon) -> None:
    ended = serve(served.mountpoint)
    assert_refused(ended, "already served by another daemon")
    assert (served.mountpoint / "proc/meminfo").read_text().startswith("MemTotal:")


@pytest.mark.parametrize("number", ["0", "-1", "65", "100000000"])
def test_a_number_of_workers_out_of_range(place: Path, number: str) -> None:
    assert_refused(serve(place, f"--workers={number}"), f"--workers {number}", "give 1 to 64")


@pytest.mark.parametrize("files", ["nonsense", "meminfo,", "meminfo,../etc/passwd", "proc", ","])
def test_a_list_of_files_that_are_none(place: Path, files: str) -> None:
    assert_refused(serve(place, "--files", files), "there is no file", "meminfo")


@pytest.mark.parametrize("args", [("--workers", "two"), ("--no-such-option",), ("a", "b")])
def test_what_the_parser_refuses_is_explained_without_a_traceback(
    place: Path, args: tuple[str, ...]
) -> None:
    ended = procscope_command("serve", str(place), *args)
    assert ended.returncode == 2
    assert "usage: procscope serve" in ended.stderr or "usage: procscope" in ended.stderr
    assert "error:" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


def test_a_run_directory_that_cannot_be_made(place: Path) -> None:
    (place / "file").touch()
    mountpoint = place / "mount"
    mountpoint.mkdir()
    ended = procscope_command("serve", str(mountpoint), "--run-directory", f"{place}/file/below")
    assert_refused(ended, f"{place}/file/below")


def test_show_of_what_is_not_there() -> None:
    assert_refused(procscope_command("show", "nonsense"), "no view of 'nonsense'", code=2)
    assert_refused(procscope_command("show"), "show takes one FILE, or --all", code=2)
    assert_refused(procscope_command("show", "meminfo", "--all"), "one FILE, or --all", code=2)
    ended = procscope_command("show", "meminfo", "--pid", "4194305")
    assert_refused(ended, "there is no process 4194305")
    assert_refused(procscope_command("show", "meminfo", "--pid", "-1"), "no process -1")
    ended = procscope_command("show", "meminfo", "--container", "no-such-container")
    assert_refused(ended, "no container with the id or name 'no-such-container'")
    for path in ("/no/such/cgroup", "no-such", "../../etc"):
        assert_refused(procscope_command("show", "meminfo", "--cgroup", path), "no cgroup")


def test_show_agrees_with_the_mount() -> None:
    with container(memory_bytes=100 * MIB) as group, agent(group) as reader:
        id_ = group.path.removeprefix("/")
        for options in (
            ("--pid", str(reader.pid)),
            ("--container", id_),
            ("--container", id_[:12]),
            ("--cgroup", group.path),
        ):
            ended = procscope_command("show", "meminfo", *options)
            assert ended.returncode == 0, ended.stderr
            assert ended.stderr == ""
            assert meminfo_of(ended.stdout)["MemTotal"] == 100 << 10


def test_show_all_shows_every_file() -> None:
    with container(memory_bytes=100 * MIB) as group, agent(group) as reader:
        ended = procscope_command("show", "--all", "--pid", str(reader.pid))
        headings = [line for line in ended.stdout.splitlines() if line.startswith("==> ")]
        assert "==> /proc/meminfo <==" in headings
        assert "==> /sys/devices/system/cpu/online <==" in headings
        assert len(headings) == 15
        assert "Traceback" not in ended.stderr


def test_show_works_without_root() -> None:
    ended = procscope_command("show", "meminfo", as_nobody=True)
    assert ended.returncode == 0
    assert ended.stdout.startswith("MemTotal:")


def test_a_reader_that_has_seen_enough_ends_it_quietly() -> None:
    ended = procscope_command("show", "--all", prefix=("sh", "-c", '"$@" | head -1', "-"))
    assert ended.stdout.splitlines() == ["==> /proc/cpuinfo <=="]
    assert ended.stderr == ""
