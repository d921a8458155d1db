"""Proves: an unfit mountpoint is refused with what is wrong and what to do; a fit one is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from procscope.daemon import mountpoint as module
from procscope.daemon.config import DEFAULT_MOUNTPOINT, LXCFS_MOUNTPOINT
from procscope.daemon.mountpoint import Standing, mount_name, mounted_at, prepare, standing
from procscope.errors import ProcscopeError
from tests.unit.cgroup.trees import mount_line


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A `/proc` whose mount table is to be written by the test."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text("")
    return tmp_path / "proc"


@pytest.fixture
def mountpoint(tmp_path: Path) -> Path:
    (tmp_path / "views").mkdir()
    return tmp_path / "views"


def mount(proc: Path, mountpoint: Path, *fstypes: str) -> None:
    lines = [mount_line(str(mountpoint), fstype, "x") for fstype in fstypes]
    (proc / "self/mountinfo").write_text("".join(lines))


def refused(mountpoint: Path, proc: Path) -> ProcscopeError:
    with pytest.raises(ProcscopeError) as caught:
        prepare(str(mountpoint), str(proc))
    assert str(mountpoint) in caught.value.message
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    return caught.value


def test_an_empty_directory_is_fit(proc: Path, mountpoint: Path) -> None:
    prepare(str(mountpoint), str(proc))


def test_a_missing_one_is_named_with_the_command_that_makes_it(proc: Path, tmp_path: Path) -> None:
    error = refused(tmp_path / "nothing", proc)
    assert error.hint == f"`mkdir -p {tmp_path}/nothing` first"
    assert not (tmp_path / "nothing").exists()


def test_a_file_is_refused(proc: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "not a directory" in refused(tmp_path / "file", proc).message


def test_a_dangling_link_is_refused(proc: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nothing")
    assert "not a directory" in refused(tmp_path / "link", proc).message


def test_a_directory_in_use_is_refused(proc: Path, mountpoint: Path) -> None:
    (mountpoint / "precious").touch()
    assert "not empty (precious, …)" in refused(mountpoint, proc).message
    assert (mountpoint / "precious").exists()


@pytest.mark.parametrize("default", ["DEFAULT_MOUNTPOINT", "LXCFS_MOUNTPOINT"])
def test_the_default_ones_are_made(
    proc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, default: str
) -> None:
    monkeypatch.setattr(module, default, f"{tmp_path}/lib/views")
    prepare(f"{tmp_path}/lib/views", str(proc))
    assert (tmp_path / "lib/views").is_dir()


def test_a_default_one_that_cannot_be_made_is_refused(
    proc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lib").touch()
    monkeypatch.setattr(module, "DEFAULT_MOUNTPOINT", f"{tmp_path}/lib/views")
    assert "cannot make" in refused(tmp_path / "lib/views", proc).message


@pytest.mark.parametrize("fstype", ["ext4", "tmpfs", "fuse.sshfs"])
def test_another_filesystem_is_refused(proc: Path, mountpoint: Path, fstype: str) -> None:
    mount(proc, mountpoint, fstype)
    assert standing(str(mountpoint), str(proc)) is Standing.FOREIGN
    assert "another filesystem" in refused(mountpoint, proc).message


@pytest.mark.parametrize("fstype", ["fuse.procscope", "fuse.lxcfs"])
def test_one_that_is_served_is_refused(proc: Path, mountpoint: Path, fstype: str) -> None:
    mount(proc, mountpoint, fstype)
    assert standing(str(mountpoint), str(proc)) is Standing.LIVE
    assert "already served" in refused(mountpoint, proc).message


def test_the_topmost_mount_of_exactly_this_path_counts(proc: Path, mountpoint: Path) -> None:
    lower = f"30 1 0:30 / {mountpoint} rw - fuse.procscope x rw\n"
    upper = f"31 30 0:31 / {mountpoint} rw - ext4 x rw\n"
    (proc / "self/mountinfo").write_text(lower + upper)
    found = mounted_at(str(mountpoint), str(proc))
    assert found is not None
    assert found.fstype == "ext4"
    assert mounted_at(str(mountpoint.parent), str(proc)) is None
    assert mounted_at(f"{mountpoint}2", str(proc)) is None


def test_a_mount_below_a_later_one_is_none(proc: Path, mountpoint: Path) -> None:
    """Somebody mounted a filesystem over the folder that the mountpoint is in."""
    ours = f"30 1 0:30 / {mountpoint} rw - fuse.procscope x rw\n"
    over = f"31 1 0:31 / {mountpoint.parent} rw - tmpfs x rw\n"
    root = "1 1 0:1 / / rw - ext4 x rw\n"
    (proc / "self/mountinfo").write_text(root + ours + over)
    assert mounted_at(str(mountpoint), str(proc)) is None
    assert standing(str(mountpoint), str(proc)) is Standing.NOTHING


def test_one_that_is_hidden_itself_hides_none(proc: Path, mountpoint: Path) -> None:
    """An older mount of the same path lies below a filesystem that was mounted on a parent."""
    older = f"30 1 0:30 / {mountpoint} rw - fuse.procscope procscope rw\n"
    over = f"31 1 0:31 / {mountpoint.parent} rw - tmpfs x rw\n"
    newer = f"32 31 0:32 / {mountpoint} rw - fuse.procscope procscope rw\n"
    root = "1 0 0:1 / / rw - ext4 x rw\n"
    (proc / "self/mountinfo").write_text(root + older + over + newer)
    found = mounted_at(str(mountpoint), str(proc))
    assert found is not None
    assert found.device == "0:32"


def test_a_path_that_the_mount_table_escapes(proc: Path, tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    (proc / "self/mountinfo").write_text(mount_line(rf"{tmp_path}/a\040b", "ext4", "x"))
    assert standing(f"{tmp_path}/a b", str(proc)) is Standing.FOREIGN


def test_where_lxcfs_has_its_mount_it_bears_its_name() -> None:
    assert mount_name(LXCFS_MOUNTPOINT).fstype == "fuse.lxcfs"
    assert mount_name(DEFAULT_MOUNTPOINT).fstype == "fuse.procscope"


def test_on_the_real_mount_table() -> None:
    assert standing("/proc") is Standing.FOREIGN
    assert standing(os.path.dirname(__file__)) is Standing.NOTHING
