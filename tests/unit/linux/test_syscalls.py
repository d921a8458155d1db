"""System calls by ctypes: errors carry errno and path, and arguments arrive as they were given."""

from __future__ import annotations

import errno
import os
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
