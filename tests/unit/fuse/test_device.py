"""Proves that what the system refuses is explained, and what is mounted is mounted safely.

The kernel's own answers to mount(2) are the business of the integration level; here its errors
are injected.
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from procscope.errors import ProcscopeError
from procscope.fuse import device, wire
from procscope.linux import syscalls
from tests.unit.fuse.memory import init_request, payload

FD = 5


def test_no_device_is_explained(tmp_path: Path) -> None:
    """On one line, with both cures."""
    with pytest.raises(ProcscopeError, match=r"cannot open .*/fuse: .*modprobe fuse.*--device"):
        device.open_device(str(tmp_path / "fuse"))


def test_the_device_is_closed_on_exec() -> None:
    """A descriptor that leaks into a child would keep the mount alive."""
    fd = device.open_device(os.devnull)
    try:
        assert not os.get_inheritable(fd)
        assert os.get_blocking(fd)
    finally:
        os.close(fd)


def test_mount_options_are_those_that_the_kernel_knows() -> None:
    """The SELinux label is quoted: it may have a comma."""
    assert device.mount_options(FD, uid=1, gid=2) == (
        "fd=5,rootmode=40755,user_id=1,group_id=2,allow_other"
    )
    idmapped = device.mount_options(FD, uid=0, gid=0, idmapped=True)
    assert idmapped.endswith(",allow_other,default_permissions")
    labelled = device.mount_options(FD, uid=0, gid=0, context="a:b:c:s0:c1,c2")
    assert labelled.endswith(',allow_other,context="a:b:c:s0:c1,c2"')


@pytest.mark.parametrize("context", ['a",fd=3', "a\0", "a\n"])
def test_a_context_cannot_smuggle_in_options(context: str) -> None:
    """It ends at its own quote only."""
    with pytest.raises(ProcscopeError, match="SELinux"):
        device.mount_options(FD, uid=0, gid=0, context=context)


@pytest.mark.parametrize(
    ("name", "fstype", "source"),
    [(None, "fuse.procscope", "procscope"), (device.LXCFS, "fuse.lxcfs", "lxcfs")],
)
def test_mount_is_powerless(
    monkeypatch: pytest.MonkeyPatch, name: device.MountName | None, fstype: str, source: str
) -> None:
    """nosuid, nodev, noexec; by its own name, or by that of lxcfs as its drop-in."""
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(syscalls, "mount", lambda *arguments: calls.append(arguments))
    device.mount(FD, "/somewhere", name)
    options = device.mount_options(FD, uid=os.geteuid(), gid=os.getegid())
    assert calls == [(source, "/somewhere", fstype, 2 | 4 | 8, options)]


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EPERM, "root"),
        (errno.ENODEV, "modprobe fuse"),
        (errno.ENOENT, "create the directory"),
        (errno.ENOTDIR, "choose a directory"),
        (errno.ENOTCONN, "umount -l"),
        (errno.EBUSY, "unmount it"),
        (errno.EINVAL, "dmesg"),
    ],
)
def test_every_refusal_to_mount_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    """One line: where, why, and the way out."""

    def refuse(*arguments: object) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(syscalls, "mount", refuse)
    with pytest.raises(ProcscopeError) as caught:
        device.mount(FD, "/somewhere")
    text = str(caught.value)
    assert text.startswith(f"cannot mount on /somewhere: {os.strerror(number)}: ")
    assert advice in text
    assert "\n" not in text


def test_init_is_exchanged_again_with_a_newer_major() -> None:
    """First 8.0, which is told 7; then 7.45, on which both agree."""
    kernel, server = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with kernel, server:
        kernel.send(init_request(major=8, minor=0))
        kernel.send(init_request())
        state = device.exchange_init(server.fileno())
        majors = [wire.fuse_init_out.unpack(payload(kernel.recv(200)))["major"] for _ in range(2)]
    assert majors == [7, 7]
    assert (state.major, state.minor) == (7, 41)


def test_a_failure_at_init_is_named(tmp_path: Path) -> None:
    """A descriptor that cannot be read."""
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(ProcscopeError, match="failed at INIT: Is a directory"):
            device.exchange_init(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("results", "flags", "unmounted"),
    [
        ([0], [0], True),
        ([errno.EBUSY, 0], [0, syscalls.MNT_DETACH], True),
        ([errno.EINVAL], [0], False),
        ([errno.ENOENT], [0], False),
    ],
)
def test_unmount_detaches_what_is_in_use(
    monkeypatch: pytest.MonkeyPatch, results: list[int], flags: list[int], unmounted: bool
) -> None:
    """And is content where nothing is mounted."""
    left = list(results)
    used = []

    def umount2(target: str, flag: int) -> None:
        used.append(flag)
        if number := left.pop(0):
            raise OSError(number, "refused")

    monkeypatch.setattr(syscalls, "umount2", umount2)
    assert device.unmount("/somewhere") is unmounted
    assert used == flags


def test_unmount_without_the_right_to_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """The target and the cure."""

    def umount2(target: str, flag: int) -> None:
        raise PermissionError(errno.EPERM, "refused")

    monkeypatch.setattr(syscalls, "umount2", umount2)
    with pytest.raises(ProcscopeError, match=r"cannot unmount /somewhere: .*: run as root"):
        device.unmount("/somewhere")
