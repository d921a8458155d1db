"""Proves: the host's files are read whole, seldom, and fresh when it is time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from procscope.observe.host import HostFiles, read_whole
from tests.unit.containers.fakeproc import open_below


def put(root: Path, name: str, content: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def test_a_snapshot_serves_until_it_is_too_old(tmp_path: Path) -> None:
    host = HostFiles(str(tmp_path), str(tmp_path))
    path = put(tmp_path, "stat", "first\n")
    assert host.read_proc("stat") == b"first\n"
    path.write_text("second, and longer\n")
    assert host.read_proc("stat", max_age_ns=1 << 60) == b"first\n"
    assert host.read_proc("stat", max_age_ns=-1) == b"second, and longer\n"
    assert open_below(tmp_path) == [str(path)]
    host.close()
    assert open_below(tmp_path) == []


@pytest.mark.parametrize("length", [0, 1, 4095, 4096, 4097, 300_000])
def test_a_file_of_any_length_is_whole(tmp_path: Path, length: int) -> None:
    host = HostFiles(str(tmp_path), str(tmp_path))
    put(tmp_path, "cpuinfo", "x" * length)
    assert host.read_proc("cpuinfo") == b"x" * length
    assert host.read_proc("cpuinfo", max_age_ns=-1) == b"x" * length
    host.close()


def test_a_read_does_not_depend_on_where_the_file_stands(tmp_path: Path) -> None:
    path = put(tmp_path, "x", "abcdef")
    fd = os.open(path, os.O_RDONLY)
    os.lseek(fd, 3, os.SEEK_SET)
    assert read_whole(fd, 2) == b"abcdef"
    os.close(fd)


def test_online_cpus_follow_hotplug(tmp_path: Path) -> None:
    host = HostFiles(str(tmp_path), str(tmp_path))
    path = put(tmp_path, "devices/system/cpu/online", "0-2,5\n")
    assert host.online_cpus() == (0, 1, 2, 5)
    path.write_text("0\n")
    host.close()
    assert host.online_cpus() == (0,)
    host.close()


@pytest.mark.parametrize("content", [None, "", "x\n", "\u0663x"])
def test_an_overcommit_ratio_that_is_none_is_the_kernels_default(
    tmp_path: Path, content: str | None
) -> None:
    host = HostFiles(str(tmp_path), str(tmp_path))
    if content is not None:
        put(tmp_path, "sys/vm/overcommit_ratio", content)
    assert host.overcommit_ratio() == 50
    host.close()


def test_the_overcommit_ratio(tmp_path: Path) -> None:
    host = HostFiles(str(tmp_path), str(tmp_path))
    put(tmp_path, "sys/vm/overcommit_ratio", "80\n")
    assert host.overcommit_ratio() == 80
    host.close()


def test_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    host = HostFiles(str(tmp_path), str(tmp_path))
    with pytest.raises(FileNotFoundError):
        host.read_proc("schedstat")
    with pytest.raises(FileNotFoundError):
        host.online_cpus()
    host.close()
