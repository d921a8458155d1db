"""What a container's root cannot do by way of the mount; docs/security.md is the other half.

It changes nothing, and it reads nothing that only the host's root may read. What it cannot learn
of other containers is in test_isolation.py.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from procscope.linux import syscalls
from tests.integration import agents, attacks
from tests.integration.agents import Agent, agent
from tests.integration.cgroups import Group, container
from tests.integration.daemons import Daemon
from tests.integration.files import CPU_FOLDER, meminfo

MIB = 1 << 20
MNT_FORCE = 1


@pytest.fixture(scope="module")
def group() -> Iterator[Group]:
    with container(memory_bytes=100 * MIB, cpus=1) as one:
        yield one


@pytest.fixture
def root(group: Group) -> Iterator[Agent]:
    """Root with every capability, CAP_SYS_ADMIN too, in a mount namespace of its own."""
    with agent(group) as one:
        one.call(attacks.private_mounts)
        yield one


@pytest.fixture
def user_root(group: Group) -> Iterator[Agent]:
    """Root in a user namespace, which is nobody on the host."""
    with attacks.user_namespace_root(group) as one:
        yield one


@pytest.fixture(params=["root", "user_root"])
def attacker(request: pytest.FixtureRequest) -> Agent:
    one = request.getfixturevalue(request.param)
    assert isinstance(one, Agent)
    return one


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A file in the container, over which a runtime mounts a view."""
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    path = tmp_path / "meminfo"
    path.touch()
    return path


def of_host() -> dict[str, tuple[int, int, int, bytes]]:
    """Modes, owners and what decides which CPUs run, in the host's folder of CPUs."""
    found = {}
    for path in map(Path, attacks.walk(str(CPU_FOLDER))):
        status = path.lstat()
        content = path.read_bytes() if path.name == "online" else b""
        found[str(path)] = (status.st_mode, status.st_uid, status.st_nlink, content)
    return found


def test_no_call_changes_anything_on_any_node(mount: Path, attacker: Agent) -> None:
    """Every file and folder of the mount, with every system call that would change it."""
    before, names = of_host(), attacks.walk(str(mount))
    attempts = attacker.call(attacks.changes_below, str(mount))
    assert len(attempts) > 20 * 20
    assert [(path, name) for path, name, number in attempts if number == 0] == []
    assert of_host() == before
    assert attacks.walk(str(mount)) == names


def test_no_writable_file_of_the_hosts_cpus_can_be_opened_for_writing(
    mount: Path, root: Agent
) -> None:
    """`cpu1/online` and its like have a mode that would let root write."""
    writable = [
        path
        for path in attacks.walk(str(CPU_FOLDER))
        if stat.S_ISREG(os.lstat(path).st_mode) and os.lstat(path).st_mode & 0o200
    ]
    assert writable
    for path in writable:
        seen = root.call(agents.errno_of, os.open, f"{mount}{path}", os.O_WRONLY)
        assert seen in (errno.EROFS, errno.ENOENT), path  # the folder of a hidden CPU is not there


def test_a_bind_mount_that_is_made_writable_can_not_be_written_to(
    mount: Path, root: Agent, target: Path
) -> None:
    """Root of a container that has CAP_SYS_ADMIN may remount; the refusal is the daemon's own."""
    root.call(attacks.bind_read_only, str(mount / "proc/meminfo"), str(target))
    root.call(attacks.remount_writable, str(target))
    attempts = root.call(attacks.changes_of_a_node, str(target))
    for name in ("O_WRONLY", "O_RDWR", "chmod", "chown", "utime", "truncate", "setxattr trusted"):
        assert attempts[name] == errno.EROFS, name
    assert root.call(agents.read, str(target)).startswith(b"MemTotal:")


def test_a_user_namespaces_root_can_not_take_the_options_off_a_mount(
    mount: Path, user_root: Agent, target: Path
) -> None:
    """The options of a mount that comes from outside are locked (mount_namespaces(7))."""
    user_root.call(attacks.bind_read_only, str(mount / "proc/meminfo"), str(target))
    for path in (str(mount), str(target)):
        for change in (attacks.remount_writable, attacks.remount_superblock):
            assert user_root.call(agents.errno_of, change, path) == errno.EPERM


def test_a_user_namespaces_root_can_not_end_the_connection(
    served: Daemon, user_root: Agent, target: Path, host: Agent
) -> None:
    """umount2(MNT_FORCE) would abort it for every container."""
    user_root.call(attacks.bind_read_only, str(served.mountpoint / "proc/meminfo"), str(target))
    for path in (str(target), str(served.mountpoint)):
        assert user_root.call(agents.errno_of, syscalls.umount2, path, MNT_FORCE) != 0
    assert meminfo(served.mountpoint, host)


def test_only_root_of_the_host_reads_slabinfo(
    mount: Path, root: Agent, user_root: Agent, group: Group
) -> None:
    """Mode 0400, as procfs has it; and root in a container gets the header alone."""
    path = str(mount / "proc/slabinfo")
    assert user_root.call(agents.errno_of, agents.read, path) == errno.EACCES
    with agent(group) as user:
        user.call(os.setresgid, 65534, 65534, 65534)
        user.call(os.setresuid, 65534, 65534, 65534)
        assert user.call(agents.errno_of, agents.read, path) == errno.EACCES
    assert len(root.call(agents.read, path).splitlines()) == 2


ODD_NAMES = [
    b"..",
    b".",
    b"../../etc/passwd",
    b"cpu0/../../../../kernel",
    b"%2e%2e",
    b"..%2f..",
    b"\xff\xfe",
    b"online\n",
    b"online ",
    b"ONLINE",
    b"cpu-1",
    b"cpu00",
    b"cpu\xd9\xa0",  # a digit of another script
    b"x" * 255,
    b"x" * 256,
]


def test_no_name_leads_out_of_a_folder(mount: Path, attacker: Agent) -> None:
    """What the kernel does not resolve by itself is not there."""
    for folder in ("proc", "sys/devices/system/cpu"):
        path = str(mount / folder)
        numbers = attacker.call(attacks.lookups, path, ODD_NAMES[4:])
        assert set(numbers) <= {errno.ENOENT, errno.ENAMETOOLONG}
        # These go through the kernel's own walk, and end where they would on any filesystem.
        assert os.path.samefile(f"{path}/..", Path(path).parent)
        assert attacker.call(agents.errno_of, agents.read, f"{path}/../../etc/passwd") != 0


def test_links_in_the_folder_of_cpus_are_followed_by_the_reader_alone(
    mount: Path, root: Agent, tmp_path: Path
) -> None:
    """A link that leaves the mount ends in the reader's own tree; the daemon follows none."""
    links = [path for path in attacks.walk(f"{mount}{CPU_FOLDER}") if os.path.islink(path)]
    leaving = [
        path
        for path in links
        if not os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path))).startswith(
            f"{mount}{CPU_FOLDER}"
        )
    ]
    assert leaving, "the folder has no link that leaves it"
    for path in leaving:
        assert root.call(agents.errno_of, os.stat, path) == errno.ENOENT
        assert root.call(agents.errno_of, os.listdir, f"{path}/..") == errno.ENOENT


def test_nothing_of_the_host_is_there_but_the_views_and_the_cpus(
    mount: Path, attacker: Agent
) -> None:
    """No process, no `sys/kernel`, no device: the folders above the CPUs have one name each."""
    assert sorted(attacker.call(os.listdir, str(mount))) == ["proc", "self", "sys"]
    assert sorted(attacker.call(os.listdir, str(mount / "self"))) == ["proc", "sys"]
    assert attacker.call(os.listdir, str(mount / "sys")) == ["devices"]
    assert attacker.call(os.listdir, str(mount / "sys/devices")) == ["system"]
    assert attacker.call(os.listdir, str(mount / "sys/devices/system")) == ["cpu"]
    for name in ("1", "self", "sys", "kcore", "kmsg", "mounts", "sys/kernel", "../sys/kernel"):
        number = attacker.call(agents.errno_of, os.stat, str(mount / "proc" / name))
        assert number == errno.ENOENT, name


def test_the_daemons_own_files_are_roots_alone(served: Daemon) -> None:
    """Nobody but root writes state, reads records, or connects to a socket."""
    for path in map(Path, attacks.walk(str(served.run_directory))):
        status = path.lstat()
        assert status.st_uid == 0, path
        assert stat.S_IMODE(status.st_mode) & 0o022 == 0, path
        if stat.S_ISSOCK(status.st_mode):
            assert stat.S_IMODE(status.st_mode) & 0o077 == 0, path
    assert stat.S_IMODE(served.records_directory.stat().st_mode) == 0o700
