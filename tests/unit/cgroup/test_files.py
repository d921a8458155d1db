"""Proves: files are opened once, read whole and fresh, kept in bounds, and dropped with the cgroup.

A directory stands for the cgroup here; that a read of a removed cgroup's open file ends with
ENODEV is the kernel's part.
"""

from __future__ import annotations

import errno
import gc
import os
import resource
import shutil
import weakref
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procscope.cgroup.files import (
    ABSENT_SECONDS,
    FIRST_BUFFER_BYTES,
    CgroupDirectory,
    CgroupFiles,
    CgroupGone,
    FileBudget,
)
from procscope.cgroup.model import Missing


class ManualClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_one_open_then_fresh_content(tmp_path: Path) -> None:
    file = tmp_path / "memory.current"
    file.write_text("1\n")
    directory = CgroupDirectory(str(tmp_path), FileBudget())
    before = open_descriptors()
    assert directory.read("memory.current") == b"1\n"
    assert open_descriptors() == before + 1
    file.write_text("23\n")
    assert directory.read("memory.current") == b"23\n"
    assert open_descriptors() == before + 1
    directory.close()
    assert open_descriptors() == before


@pytest.mark.parametrize("offset", [-1, 0, 1])
@pytest.mark.parametrize("buffers", [1, 2, 8])
def test_content_of_any_length_is_whole(tmp_path: Path, buffers: int, offset: int) -> None:
    content = os.urandom(buffers * FIRST_BUFFER_BYTES + offset)
    (tmp_path / "memory.stat").write_bytes(content)
    directory = CgroupDirectory(str(tmp_path), FileBudget())
    assert directory.read("memory.stat") == content
    assert directory.read("memory.stat") == content
    directory.close()


def test_a_missing_file_is_looked_for_again_after_a_while(tmp_path: Path) -> None:
    clock = ManualClock()
    directory = CgroupDirectory(str(tmp_path), FileBudget(), clock)
    assert directory.read("cpu.max") is Missing.ABSENT
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert directory.read("cpu.max") is Missing.ABSENT
    clock.now += ABSENT_SECONDS
    assert directory.read("cpu.max") == b"max 100000\n"
    directory.close()


def test_a_file_that_cannot_be_read_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "memory.stat").mkdir()
    directory = CgroupDirectory(str(tmp_path), FileBudget())
    assert directory.read("memory.stat") is Missing.UNREADABLE
    with pytest.raises(IsADirectoryError):
        directory.read_or_raise("memory.stat")
    directory.close()


def test_a_removed_cgroup_is_gone(tmp_path: Path) -> None:
    cgroup = tmp_path / "c"
    cgroup.mkdir()
    files = CgroupFiles(FileBudget())
    directory = files.directory(str(cgroup))
    assert directory.exists()
    cgroup.rmdir()
    assert not directory.exists()
    with pytest.raises(CgroupGone) as caught:
        files.read(str(cgroup), "memory.max")
    assert caught.value.errno == errno.ENODEV
    assert caught.value.filename == str(cgroup)
    with pytest.raises(CgroupGone):
        CgroupFiles(FileBudget()).directory(str(cgroup))


def test_a_cgroup_made_again_is_another(tmp_path: Path) -> None:
    """The old one's reader must not mix the new one's files in."""
    cgroup, other = tmp_path / "c", tmp_path / "d"
    for made in (cgroup, other):
        made.mkdir()
        (made / "memory.max").write_text("1\n")
    directory = CgroupDirectory(str(cgroup), FileBudget())
    shutil.rmtree(cgroup)
    other.rename(cgroup)
    before = open_descriptors()
    with pytest.raises(CgroupGone):
        directory.read("memory.max")
    assert not directory.exists()
    assert open_descriptors() == before


def test_past_the_budget_the_longest_unread_file_is_closed(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_text(name)
    budget = FileBudget(2)
    directory = CgroupDirectory(str(tmp_path), budget)
    before = open_descriptors()
    for name in ("a", "b", "a", "c"):
        assert directory.read(name) == name.encode()
    assert len(budget) == 2
    assert open_descriptors() == before + 2
    opened = {os.readlink(f"/proc/self/fd/{fd}") for fd in _descriptors_below(tmp_path)}
    assert opened == {f"{tmp_path}/a", f"{tmp_path}/c"}
    directory.close()
    assert open_descriptors() == before


def _descriptors_below(path: Path) -> list[str]:
    found: list[str] = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue
        if target.startswith(f"{path}/"):
            found.append(fd)
    return found


@settings(deadline=None)
@given(reads=st.lists(st.integers(0, 9)), cap=st.integers(1, 5))
def test_any_order_of_reads_stays_in_the_budget(
    reads: list[int], cap: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("cgroup")
    for number in range(10):
        (root / str(number)).write_text(str(number))
    budget = FileBudget(cap)
    directories = [CgroupDirectory(str(root), budget) for _ in range(2)]
    for index, number in enumerate(reads):
        assert directories[index % 2].read(str(number)) == str(number).encode()
        assert len(budget) <= cap
    for directory in directories:
        directory.close()
    assert len(budget) == 0


def test_out_of_descriptors_others_are_given_up(tmp_path: Path) -> None:
    """A full descriptor table must not turn a limit into no limit."""
    for name in "abc":
        (tmp_path / name).write_text(name)
    budget = FileBudget(1000)
    directory = CgroupDirectory(str(tmp_path), budget)
    directory.read("a")
    directory.read("b")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fillers: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_descriptors() + 20, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            fillers.extend(iter(lambda: os.open("/dev/null", os.O_RDONLY), -1))
        assert directory.read("c") == b"c"
        assert len(budget) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in fillers:
            os.close(fd)
        directory.close()


def test_of_what_a_lowered_limit_has_made_useless_nothing_is_given_up(tmp_path: Path) -> None:
    """Closing a number beyond the limit frees none that can be had: who reads now goes on."""
    for name in "abc":
        (tmp_path / name).write_text(name)
    budget = FileBudget(1000)
    directory = CgroupDirectory(str(tmp_path), budget)
    directory.read("a")
    directory.read("b")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            directory.read("c")
        assert directory.read("a") == b"a"
        assert len(budget) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        directory.close()


def test_what_is_closed_is_freed_at_once(tmp_path: Path) -> None:
    """Not when the collector of cycles comes by: thousands of containers may go before that."""
    (tmp_path / "a").write_text("a")
    directory = CgroupDirectory(str(tmp_path), FileBudget())
    directory.read("a")
    file = weakref.ref(next(iter(directory.budget._open)))
    gc.disable()
    try:
        directory.close()
        assert file() is None
    finally:
        gc.enable()


def test_the_default_budget_is_below_the_process_limit() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == resource.RLIM_INFINITY or 1 <= FileBudget().max_open < soft
