"""System calls by ctypes: errors carry errno and path, and arguments arrive as they were given."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from procscope.linux import syscalls


def test_a_mount_that_fails_names_the_call_and_the_path(tmp_path: Path) -> None:
    target = str(tmp_path / "nowhere")
    with pytest.raises(OSError, match="mount: ") as caught:
        syscalls.mount("none", target, "tmpfs", 0)
    assert caught.value.errno in (errno.ENOENT, errno.EPERM)  # EPERM for an ordinary user
    assert caught.value.filename == target


def test_an_unmount_that_fails_names_the_call_and_the_path(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="umount2: ") as caught:
        syscalls.umount2(str(tmp_path), syscalls.MNT_DETACH)
    assert caught.value.errno in (errno.EINVAL, errno.EPERM)
    assert caught.value.filename == str(tmp_path)


def test_setns_and_unshare_give_the_kernels_errno() -> None:
    with pytest.raises(OSError, match="setns: ") as caught:
        syscalls.setns(-1, 0)
    assert caught.value.errno == errno.EBADF
    with pytest.raises(OSError, match="unshare: ") as caught:
        syscalls.unshare(1)  # no namespace, and no flag of unshare(2)
    assert caught.value.errno == errno.EINVAL


def test_a_path_is_never_cut_at_a_nul() -> None:
    with pytest.raises(ValueError, match="embedded NUL"):
        syscalls.umount2("/tmp\0/else")


@pytest.mark.parametrize("name", ["short", "a b)", "much-longer-than-a-comm", "\udcff"])
def test_a_name_is_set_and_cut_to_15_bytes(name: str) -> None:
    comm = Path("/proc/thread-self/comm")
    before = os.fsdecode(comm.read_bytes()).removesuffix("\n")
    try:
        syscalls.set_name(name)
        assert comm.read_bytes() == os.fsencode(name)[:15] + b"\n"
    finally:
        syscalls.set_name(before)


def test_a_missing_call_is_told_with_the_kernels_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """No kernel here lacks one of them: the number is what a seccomp filter would return."""
    monkeypatch.setattr("ctypes.get_errno", lambda: errno.ENOSYS)
    with pytest.raises(OSError, match=os.uname().release) as caught:
        syscalls.setns(-1, 0)
    assert caught.value.errno == errno.ENOSYS


def test_a_walk_follows_only_what_it_may(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/file").touch()
    (tmp_path / "in/link").symlink_to("file")
    top = os.open(tmp_path / "in", os.O_PATH)
    try:
        beneath = syscalls.RESOLVE_BENEATH
        found = syscalls.openat2(top, "link", os.O_RDONLY, beneath)
        assert os.path.samestat(os.fstat(found), os.stat(tmp_path / "in/file"))
        assert not os.get_inheritable(found)
        os.close(found)
        refused = [
            ("link", beneath | syscalls.RESOLVE_NO_SYMLINKS, errno.ELOOP),
            ("../in/file", beneath, errno.EXDEV),
            ("none", beneath, errno.ENOENT),
        ]
        for path, resolve, number in refused:
            with pytest.raises(OSError, match="openat2: ") as caught:
                syscalls.openat2(top, path, os.O_RDONLY, resolve)
            assert (caught.value.errno, caught.value.filename) == (number, path)
        inside = syscalls.openat2(top, "/../file", os.O_RDONLY, syscalls.RESOLVE_IN_ROOT)
        os.close(inside)
    finally:
        os.close(top)


def test_calls_on_mounts_give_the_kernels_errno() -> None:
    calls: dict[str, Callable[[], object]] = {
        "open_tree": lambda: syscalls.open_tree(-1, "none", syscalls.OPEN_TREE_CLONE),
        "move_mount": lambda: syscalls.move_mount(-1, -1),
        "mount_setattr": lambda: syscalls.mount_setattr(-1, syscalls.MOUNT_ATTR_RDONLY),
        "pidfd_getfd": lambda: syscalls.pidfd_getfd(-1, 0),
    }
    for name, call in calls.items():
        with pytest.raises(OSError, match=f"{name}: ") as caught:
            call()
        assert caught.value.errno in (errno.EBADF, errno.EPERM)  # EPERM for an ordinary user


def test_a_descriptor_of_another_process_is_this_ones_own() -> None:
    """The other process is this one: any process may look into itself."""
    reader, writer = os.pipe()
    pidfd = os.pidfd_open(os.getpid())
    copy = syscalls.pidfd_getfd(pidfd, writer)
    try:
        assert copy != writer
        assert not os.get_inheritable(copy)
        os.write(copy, b"through")
        assert os.read(reader, 16) == b"through"
    finally:
        for fd in (reader, writer, pidfd, copy):
            os.close(fd)


def test_a_new_call_is_told_with_the_release_that_brought_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ctypes.get_errno", lambda: errno.ENOSYS)
    with pytest.raises(OSError, match=r"it came with 5\.12") as caught:
        syscalls.mount_setattr(-1, syscalls.MOUNT_ATTR_RDONLY)
    assert caught.value.errno == errno.ENOSYS
