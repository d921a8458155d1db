"""A container's root cannot reach another container's view, nor lead the daemon where it likes."""

from __future__ import annotations

import errno
import os
import select
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from procscope.linux import syscalls
from tests.integration import agents, attacks
from tests.integration.agents import Agent, agent
from tests.integration.cgroups import Group, container, made, new_id
from tests.integration.daemons import Daemon, procscope_command
from tests.integration.files import CPU_FOLDER, ONLINE, meminfo, meminfo_of
from tests.integration.waiting import eventually

MIB = 1 << 20
OURS, THEIRS = 100, 300
"""MemTotal in MiB of the attacker's container and of its victim's."""
CLONE_NEWCGROUP = 0x02000000


@pytest.fixture(scope="module")
def our_group() -> Iterator[Group]:
    with container(memory_bytes=OURS * MIB, cpus=1, path=f"/docker-{new_id()}.scope") as one:
        yield one


@pytest.fixture(scope="module")
def their_group() -> Iterator[Group]:
    with container(memory_bytes=THEIRS * MIB, path=f"/docker-{new_id()}.scope") as one:
        yield one


@pytest.fixture
def attacker(our_group: Group) -> Iterator[Agent]:
    with agent(our_group) as one:
        yield one


@pytest.fixture
def victim(their_group: Group) -> Iterator[Agent]:
    with agent(their_group) as one:
        yield one


def total(content: bytes) -> int:
    """MemTotal in MiB."""
    return meminfo_of(content.decode())["MemTotal"] >> 10


def read_total(reader: Agent, path: Path | str) -> int:
    return total(reader.call(agents.read, str(path)))


def test_the_root_of_another_process_leads_to_ones_own_view(
    mount: Path, attacker: Agent, victim: Agent
) -> None:
    """`/proc/PID/root` and `/proc/PID/cwd` of a process that can be seen (hostPID)."""
    victim.call(os.chdir, str(mount / "proc"))
    assert read_total(attacker, f"/proc/{victim.pid}/root{mount}/proc/meminfo") == OURS
    assert read_total(attacker, f"/proc/{victim.pid}/cwd/meminfo") == OURS
    victim.call(os.chdir, "/")


def test_an_open_file_of_another_that_is_opened_again_shows_ones_own_view(
    mount: Path, attacker: Agent, victim: Agent
) -> None:
    """`/proc/PID/fd/N` opens the node, not the content."""
    opened = victim.call(os.open, str(mount / "proc/meminfo"), os.O_RDONLY)
    assert read_total(attacker, f"/proc/{victim.pid}/fd/{opened}") == OURS
    assert total(victim.call(os.pread, opened, 1 << 16, 0)) == THEIRS
    victim.call(os.close, opened)


def test_a_file_handle_of_a_node_opens_ones_own_view(
    mount: Path, attacker: Agent, victim: Agent
) -> None:
    """Node ids are the same for everybody, and so there is nothing to guess."""
    handle = victim.call(attacks.file_handle, str(mount / "proc/meminfo"))
    assert handle == attacker.call(attacks.file_handle, str(mount / "proc/meminfo"))
    number = attacker.call(agents.errno_of, attacks.read_by_handle, str(mount), *handle)
    assert number in (0, errno.ESTALE, errno.EPERM, errno.EOPNOTSUPP)
    if number == 0:
        assert total(attacker.call(attacks.read_by_handle, str(mount), *handle)) == OURS


@pytest.mark.skipif(len(ONLINE) < 2, reason="no CPU can be hidden on a machine with one")
def test_a_file_handle_of_a_hidden_cpu_opens_nothing(
    mount: Path, attacker: Agent, host: Agent
) -> None:
    path = f"{mount}{CPU_FOLDER}/cpu{ONLINE[-1]}/topology/core_id"
    handle = host.call(attacks.file_handle, path)
    number = attacker.call(agents.errno_of, attacks.read_by_handle, str(mount), *handle)
    assert number in (errno.ENOENT, errno.ESTALE)


@pytest.mark.parametrize("kind", [129, 1, 2, 254])
def test_a_handle_of_any_bytes_is_stale(mount: Path, attacker: Agent, kind: int) -> None:
    """FILEID_INO64_GEN and others, with numbers that no node has."""
    for raw in (bytes(12), b"\xff" * 12, b"\x01" + bytes(11), bytes(range(12)), b"\x05" * 128):
        number = attacker.call(agents.errno_of, attacks.read_by_handle, str(mount), kind, raw)
        assert number != 0


def test_a_file_that_was_passed_on_has_what_its_opener_saw(
    mount: Path, attacker: Agent, victim: Agent
) -> None:
    """Whoever hands out an open file hands out what it could read in it, and nothing after that."""
    opened = victim.call(os.open, str(mount / "proc/meminfo"), os.O_RDONLY)
    taken = attacker.call(attacks.take, victim.pid, opened)
    assert total(attacker.call(os.pread, taken, 1 << 16, 0)) == THEIRS
    # From its start once more, it is made anew: for who reads.
    assert total(attacker.call(os.pread, taken, 1 << 16, 0)) == OURS
    victim.call(os.close, opened)


def test_a_file_that_was_passed_on_does_not_bring_the_others_view_back(
    mount: Path, attacker: Agent, victim: Agent
) -> None:
    """The attacker gives its file to somebody who reads it, and then reads on in it."""
    opened = attacker.call(os.open, str(mount / "proc/meminfo"), os.O_RDONLY)
    taken = victim.call(attacks.take, attacker.pid, opened)
    for _ in range(2):
        victim.call(os.pread, taken, 1 << 16, 0)
    rest = b"M" + attacker.call(os.pread, opened, 1 << 16, 1)
    assert total(rest) == OURS


def test_the_page_cache_is_nobodys(mount: Path, attacker: Agent, victim: Agent) -> None:
    """sendfile(2) and splice(2) would read through it, and are refused; read(2) is one's own."""
    path = str(mount / "proc/meminfo")
    for _ in range(3):
        for reader, expected in ((victim, THEIRS), (attacker, OURS)):
            assert reader.call(agents.errno_of, attacks.send_file, path) == errno.EINVAL
            assert read_total(reader, path) == expected
    status = os.stat(path)
    assert status.st_size > 0


def test_fanotify_opens_ones_own_view(mount: Path, attacker: Agent, victim: Agent) -> None:
    """Who may use fanotify(7) learns that a file was opened. What it is handed is its own view."""
    path = str(mount / "proc/meminfo")
    watching = attacker.call(attacks.watch_with_fanotify, path)
    assert read_total(victim, path) == THEIRS
    assert total(attacker.call(attacks.read_of_fanotify, watching)) == OURS
    attacker.call(os.close, watching)


@pytest.mark.skipif(len(ONLINE) < 2, reason="all containers see the same CPUs")
def test_the_size_in_stat_is_of_ones_own_view(
    mount: Path, attacker: Agent, victim: Agent, tmp_path: Path
) -> None:
    """Also where a file alone is mounted, so that no lookup refreshes its attributes."""
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    target = tmp_path / "cpuinfo"
    target.touch()
    for reader in (attacker, victim):
        reader.call(attacks.private_mounts)
        reader.call(attacks.bind_read_only, str(mount / "proc/cpuinfo"), str(target))
    lengths = [len(one.call(agents.read, str(target))) for one in (attacker, victim)]
    assert lengths[0] < lengths[1]
    sizes = [one.call(attacks.size_of, str(target)) for one in (attacker, victim)]
    assert sizes == lengths


def test_nobody_can_make_others_wait_with_a_lease(
    mount: Path, attacker: Agent, victim: Agent
) -> None:
    """A write lease (fcntl(2)) stops every other open(2) for `fs.lease-break-time`, 45 s."""
    path = str(mount / "proc/meminfo")
    assert attacker.call(agents.errno_of, attacks.take_lease, path) != 0
    victim.call(attacks.open_without_waiting, path)


def test_a_cgroup_namespace_hides_nothing_from_the_daemon(mount: Path, attacker: Agent) -> None:
    """The daemon reads the whole path, whatever the container sees of it."""
    attacker.call(syscalls.unshare, CLONE_NEWCGROUP)
    assert read_total(attacker, mount / "proc/meminfo") == OURS


def shows(mount: Path, reader: Agent, mib: int) -> bool:
    """Whether MemTotal is so much."""
    return meminfo(mount, reader)["MemTotal"] >> 10 == mib


def imitations(other: str) -> list[str]:
    """Names below one's own cgroup that look like another container's."""
    return [
        f"docker-{other}.scope",
        other,
        "docker/" + other,
        f"cri-containerd-{other}.scope",
        f"kubepods-pod1.slice:cri-containerd:{other}",
        f"machine.slice/libpod-{other}.scope",
        "lxc.payload.other",
        "procscope/other",
    ]


def test_a_nested_cgroup_with_the_name_of_another_shows_its_own_numbers(
    mount: Path, our_group: Group, their_group: Group
) -> None:
    """At most what one has limited oneself to: never more than one's own limit, never theirs."""
    other = their_group.path.removeprefix("/docker-").removesuffix(".scope")
    for name in imitations(other):
        with ExitStack() as stack:
            path = our_group.path
            nested = our_group
            for component in name.split("/"):
                path = f"{path}/{component}"
                nested = stack.enter_context(made(path))
            reader = stack.enter_context(agent(nested))
            assert meminfo(mount, reader)["MemTotal"] >> 10 == OURS, name
            nested.set_memory(60 * MIB)
            # What was rendered a few milliseconds ago may be told again.
            eventually(partial(shows, mount, reader, 60))


ODD_NAMES = [
    "a b (deleted)",
    " (deleted)",
    "..%2f..",
    "...",
    "\udcff\udcfe",
    "a:b:/",
    ":",
    "\\012\\040",
    "x" * 255,
    "\r\x1b[2J",
    "\u2028",
]


def test_a_cgroups_name_has_no_line_end(our_group: Group) -> None:
    """With one, `/proc/PID/cgroup` could tell of a cgroup that there is not: the kernel refuses."""
    with pytest.raises(OSError, match="Invalid argument"):
        (our_group.directory("memory") / f"a\n0::docker-{new_id()}.scope").mkdir()


@pytest.mark.parametrize("name", ODD_NAMES, ids=range(len(ODD_NAMES)))
def test_a_cgroups_name_leads_nowhere(
    served: Daemon, our_group: Group, victim: Agent, name: str
) -> None:
    """Whatever a cgroup inside is called, a reader in it sees its own container."""
    with made(f"{our_group.path}/{name}", controllers=False) as group, agent(group) as reader:
        assert meminfo(served.mountpoint, reader)["MemTotal"] >> 10 == OURS
        for view in ("stat", "uptime", "loadavg", "cpuinfo"):
            content = reader.call(agents.read, str(served.mountpoint / "proc" / view))
            assert content.endswith(b"\n")
    assert meminfo(served.mountpoint, victim)["MemTotal"] >> 10 == THEIRS


@pytest.mark.parametrize(
    "comm",
    [b") R 1 1 (", b"a\nState:\tZ", b"\xff\xfe(", b") ", b"NSpid:\t1\t1", b"\r\n1", b"((((((("],
)
def test_a_tasks_name_changes_no_number(mount: Path, attacker: Agent, comm: bytes) -> None:
    """`/proc/PID/stat` and `status` hold the name as the task has chosen it."""
    attacker.call(attacks.rename_task, comm)
    assert read_total(attacker, mount / "proc/meminfo") == OURS
    text = attacker.call(agents.read, str(mount / "proc/loadavg")).decode()
    running, _, threads = text.split()[3].partition("/")
    assert 1 <= int(running) <= int(threads)
    uptime_s = float(attacker.call(agents.read, str(mount / "proc/uptime")).split()[0])
    host_s = float(Path("/proc/uptime").read_text().split()[0])
    assert 0 <= uptime_s <= host_s


def test_the_init_of_a_pid_namespace_that_was_moved_leads_nowhere(mount: Path) -> None:
    """An init in another container's cgroup does not show that container to its children."""
    with ExitStack() as stack:
        ours = stack.enter_context(made(f"/ours-{new_id()[:8]}"))
        theirs = stack.enter_context(made(f"/theirs-{new_id()[:8]}"))
        ours.set_memory(OURS * MIB)
        theirs.set_memory(THEIRS * MIB)
        enter = "\n".join(f"echo 0 > '{path}/cgroup.procs'" for path in ours.directories)
        script = f"{enter}\nexec unshare -pf sh -c 'read go; cat {mount}/proc/meminfo; true; cat'"
        with subprocess.Popen(
            ["sh", "-ec", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as shell:
            assert shell.stdin is not None
            assert shell.stdout is not None
            children = Path(f"/proc/{shell.pid}/task/{shell.pid}/children")
            while not children.read_text().strip():
                select.select([], [], [], 0.01)
            init = int(children.read_text().split()[0])
            theirs.add(init)
            shell.stdin.write(b"\n")
            shell.stdin.close()
            # The reader is a child of the init, forked after the move: it is in `theirs` itself.
            assert total(shell.stdout.read()) == THEIRS


def test_the_command_line_is_not_led_to_an_imitation(
    our_group: Group, their_group: Group, victim: Agent
) -> None:
    """`show --container` takes what the runtime has made, not what is nested in a container."""
    other = their_group.path.removeprefix("/docker-").removesuffix(".scope")
    with made(f"{our_group.path}/docker-{other}.scope"):
        ended = procscope_command("show", "meminfo", "--container", other)
        assert ended.returncode == 0, ended.stderr
        assert meminfo_of(ended.stdout)["MemTotal"] >> 10 == THEIRS
