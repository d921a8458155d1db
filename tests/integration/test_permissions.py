"""Who may open what: the same whether the kernel checks modes or the daemon does."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from procscope.linux import syscalls
from tests.integration.daemons import Daemon, daemon

NOBODY = 65534
MOUNT_ATTR_IDMAP = 0x00100000
MOUNT_SETATTR = 442
LOOK = """
import json, os, sys
top, found = sys.argv[1], {}
def look(path):
    said = [os.access(path, mask) for mask in (os.R_OK, os.W_OK, os.X_OK)]
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        said.append(0)
    except OSError as error:
        said.append(error.errno)
    try:
        os.chdir(path)
        said.append(0)
    except OSError as error:
        said.append(error.errno)
    found[os.path.relpath(path, top)] = said
for folder, folders, files in os.walk(top):
    for name in [".", *folders, *files]:
        look(os.path.join(folder, name))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def plain() -> Iterator[Daemon]:
    with daemon() as served:
        yield served


@pytest.fixture(scope="module")
def idmapped() -> Iterator[Daemon]:
    with daemon("--idmapped-mounts") as served:
        yield served


def outcomes(top: Path, user: int, group: int) -> dict[str, list[int]]:
    """What access(2), open(2) and chdir(2) say of everything below `top`."""
    ended = subprocess.run(
        ["/usr/bin/env", "python3", "-c", LOOK, str(top)],
        user=user,
        group=group,
        extra_groups=[],
        capture_output=True,
        check=True,
        text=True,
        env={"PATH": "/usr/bin:/bin"},
    )
    found: dict[str, list[int]] = json.loads(ended.stdout)
    return found


@pytest.mark.parametrize(("user", "group"), [(0, 0), (NOBODY, NOBODY), (NOBODY, 0)])
def test_modes_are_heeded_alike(plain: Daemon, idmapped: Daemon, user: int, group: int) -> None:
    ours = outcomes(plain.mountpoint, user, group)
    assert ours == outcomes(idmapped.mountpoint, user, group)
    assert ours["proc/meminfo"][0] is True
    assert ours["proc/slabinfo"][0] is (user == 0)
    assert (ours["proc/slabinfo"][3] == 0) is (user == 0)


def test_the_kernel_checks_only_where_it_has_to(plain: Daemon, idmapped: Daemon) -> None:
    for served, checks in ((plain, False), (idmapped, True)):
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        (line,) = [line for line in lines if line.split()[4] == str(served.mountpoint)]
        assert ("default_permissions" in line.split()[-1].split(",")) is checks


@contextmanager
def user_namespace() -> Iterator[int]:
    """A descriptor of one in which root is user 100000 outside."""
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        preexec_fn=lambda: syscalls.unshare(syscalls.CLONE_NEWUSER),  # noqa: PLW1509
    )
    try:
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{child.pid}/{name}").write_text("0 100000 65536\n")
        fd = os.open(f"/proc/{child.pid}/ns/user", os.O_RDONLY)
        try:
            yield fd
        finally:
            os.close(fd)
    finally:
        child.kill()
        child.wait()
        assert child.stdin is not None
        child.stdin.close()


def idmap_errno(path: Path) -> int:
    """Make an idmapped mount of a file as runtimes do; 0, or the errno."""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = syscalls.OPEN_TREE_CLONE | os.O_CLOEXEC
    tree = syscalls.open_tree(-100, str(path), flags)
    try:
        with user_namespace() as namespace:
            attributes = (ctypes.c_uint64 * 4)(MOUNT_ATTR_IDMAP, 0, 0, namespace)
            failed = libc.syscall(MOUNT_SETATTR, tree, b"", 0x1000, attributes, 32)
            return ctypes.get_errno() if failed else 0
    finally:
        os.close(tree)


def test_a_bind_mount_can_be_idmapped_only_where_that_was_asked_for(
    plain: Daemon, idmapped: Daemon
) -> None:
    assert idmap_errno(plain.mountpoint / "proc/meminfo") != 0
    release = tuple(int(word) for word in os.uname().release.split("-")[0].split(".")[:2])
    assert (idmap_errno(idmapped.mountpoint / "proc/meminfo") == 0) is (release >= (6, 12))
