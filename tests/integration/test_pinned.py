"""The pinned tree: what a container has mounted from `MOUNT/self` is its own, whoever else looks.

Containers are agents in cgroups that are recognised as such, with mount namespaces of their own in
which they mount the files themselves, as a runtime's init does.
"""

from __future__ import annotations

import errno
import fcntl
import mmap as memory_maps
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import cast

import pytest

from procscope.linux import syscalls
from procscope.linux.mountinfo import Mount, read_mountinfo
from procscope.observe.registry import VIEWS
from procscope.tree.pinned import LIMITS_VALID_NS
from procscope.tree.pinnedcontents import STARTING_NS
from procscope.tree.sources import FOLLOW_LIMITS
from tests.integration import agents
from tests.integration.agents import Agent, agent
from tests.integration.cgroups import ROOT, Group, container
from tests.integration.daemons import Daemon, alive, daemon, folder, procscope_command
from tests.integration.files import CPU_FOLDER, ONLINE, meminfo_of
from tests.integration.waiting import eventually, fewer

MIB = 1 << 20
CPUINFO, MEMINFO = "/proc/cpuinfo", "/proc/meminfo"
ONLINE_FILE = f"{CPU_FOLDER}/online"
LIMITS = ("proc/cpuinfo", "sys/devices/system/cpu")
ALL = ("proc/cpuinfo", "proc/meminfo", "proc/stat", "sys/devices/system/cpu")
AFTER_VALID_S = LIMITS_VALID_NS / 1e9 + 0.05
"""Until then the kernel asks again: it counts in ticks, and a list of CPUs is some ms old."""
two_cpus = pytest.mark.skipif(len(ONLINE) < 2, reason="one CPU is not to be told from another")


def pin(mount: str, files: Sequence[str]) -> None:
    """In a mount namespace of one's own, mount files of the pinned tree over the kernel's."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    for file in files:
        syscalls.mount(f"{mount}/self/{file}", f"/{file}", None, syscalls.MS_BIND)


@contextmanager
def pinned(mount: Path, group: Group, files: Sequence[str] = LIMITS) -> Iterator[Agent]:
    """A process of a container that has the files."""
    with agent(group) as one:
        one.call(pin, str(mount), files)
        yield one


@pytest.fixture(params=["young", "grown"])
def age(request: pytest.FixtureRequest) -> Iterator[Callable[[Group], None]]:
    """Makes a container one that is being started, or has started long ago."""
    if request.param == "young":
        yield lambda _: None
        return
    with agent(ROOT) as oldest:
        time.sleep(STARTING_NS / 1e9 + 0.1)
        yield oldest.move


def processors(text: bytes) -> int:
    """How many CPUs a `cpuinfo` tells of."""
    return len(re.findall(rb"^processor\s*:", text, re.MULTILINE))


def in_pieces(path: str, size: int) -> bytes:
    """Read with a buffer of so many bytes."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return b"".join(iter(lambda: os.read(fd, size), b""))
    finally:
        os.close(fd)


def from_the_end(path: str, size: int) -> bytes:
    """Read with pread(2), the last piece first."""
    fd = os.open(path, os.O_RDONLY)
    try:
        end = os.fstat(fd).st_size
        starts = range(0, end, size)
        return b"".join(reversed([os.pread(fd, size, start) for start in reversed(starts)]))
    finally:
        os.close(fd)


def mapped(path: str, flags: int) -> bytes:
    """Read through a mapping."""
    fd = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        with memory_maps.mmap(fd, size, flags, memory_maps.PROT_READ) as found:
            return found[:]
    finally:
        os.close(fd)


def direct(path: str) -> bytes:
    """Read past the page cache."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        with memory_maps.mmap(-1, 1 << 16) as buffer:
            return buffer[: os.readv(fd, [buffer])]
    finally:
        os.close(fd)


def sent(path: str) -> bytes:
    """Read by sendfile(2)."""
    source = os.open(path, os.O_RDONLY)
    target = os.memfd_create("target")
    try:
        while os.sendfile(target, source, None, 1 << 16):
            pass
        return os.pread(target, 1 << 20, 0)
    finally:
        os.close(source)
        os.close(target)


def at_once(path: str, size: int) -> bytes:
    """Read with one read(2)."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, size)
    finally:
        os.close(fd)


def link(path: str) -> str:
    """Where a link leads the process that follows it."""
    return os.readlink(path)


def shell(command: Sequence[str]) -> bytes:
    """Run a program to its end."""
    return subprocess.run(command, check=True, capture_output=True).stdout


def reading(
    path: str, size: int, stop: str, expected: Sequence[bytes], read: Callable[[str, int], bytes]
) -> tuple[int, list[str]]:
    """Read until the file `stop` is there; return how often, and what was not expected."""
    count, wrong = 0, []
    while not os.path.exists(stop):
        try:
            found = read(path, size)
        except OSError as error:
            wrong.append(repr(error))
            continue
        count += 1
        if found not in expected:
            wrong.append(repr(found))
    return count, wrong[:5]


def looking_up(mount: str, stop: str) -> int:
    """Walk to the files until the file `stop` is there; return how often."""
    count = 0
    while not os.path.exists(stop):
        for file in ALL:
            os.stat(f"{mount}/self/{file}")
        count += 1
    return count


# What is seen


def test_the_files_that_follow_the_limits_are_known_by_one_name() -> None:
    views = {f"proc/{name}" for name, view in VIEWS.items() if view.follows_limits}
    assert views == {file for file in FOLLOW_LIMITS if file.startswith("proc/")}


@two_cpus
def test_containers_that_start_at_once_each_keep_their_own(mount: Path) -> None:
    """Fifty, while the same paths are walked by a container and by the host."""
    count = fewer(50, 8)
    with ExitStack() as stack:
        stop = stack.enter_context(folder()) / "stop"
        sizes = [(64 + index) * MIB for index in range(count)]
        cpusets = [("0", "1", "0-1")[index % 3] for index in range(count)]
        groups = [
            stack.enter_context(container(memory_bytes=size, cpuset=cpuset))
            for size, cpuset in zip(sizes, cpusets, strict=True)
        ]
        started = [stack.enter_context(agent(group)) for group in groups]
        others = [
            stack.enter_context(agent(stack.enter_context(container(cpuset="0")))),
            stack.enter_context(agent()),
        ]
        for other in others:
            other.send(looking_up, str(mount), str(stop))
        for one in started:
            one.send(pin, str(mount), ALL)
        for one in started:
            one.receive()
        for size, cpuset, one in zip(sizes, cpusets, started, strict=True):
            for _ in range(2):
                found = meminfo_of(one.call(agents.read, MEMINFO).decode())
                assert found["MemTotal"] == size >> 10
                assert one.call(agents.read, ONLINE_FILE).decode().strip() == cpuset
                text = one.call(agents.read, CPUINFO)
                assert processors(text) == len(cpuset.split("-"))
        stop.touch()
        assert all(cast("int", other.receive()) > 0 for other in others)


@two_cpus
def test_every_way_to_read_gives_the_same(mount: Path) -> None:
    with container(cpuset="1") as group, pinned(mount, group) as one:
        for path in (CPUINFO, ONLINE_FILE, f"{CPU_FOLDER}/possible"):
            whole = one.call(agents.read, path)
            assert whole
            for size in (1, 7, 1024, 1 << 16):
                assert one.call(in_pieces, path, size) == whole
                assert one.call(from_the_end, path, size) == whole
            assert one.call(mapped, path, memory_maps.MAP_SHARED) == whole
            assert one.call(mapped, path, memory_maps.MAP_PRIVATE) == whole
            assert one.call(sent, path) == whole
            assert one.call(direct, path) == whole
            assert one.call(os.stat, path).st_size == len(whole)
            for program in (["dash"], ["busybox", "sh"], ["sh"]):
                loop = [*program, "-c", f'while read -r l; do echo "$l"; done < {path}']
                lines = [line.strip() for line in whole.splitlines()]
                assert [line.strip() for line in one.call(shell, loop).splitlines()] == lines
            assert one.call(shell, ["busybox", "cat", path]) == whole
            assert one.call(shell, ["dd", f"if={path}", "bs=1", "status=none"]) == whole


@two_cpus
def test_a_limit_that_is_set_after_the_mounts_shows_at_the_first_read(mount: Path) -> None:
    """As runc does it on cgroup v1, which has a look at each mount before."""
    with container(cpuset="0-1") as group, pinned(mount, group) as one:
        assert one.call(os.stat, CPUINFO).st_size
        assert one.call(os.listdir, CPU_FOLDER)
        assert one.call(os.path.exists, f"{CPU_FOLDER}/cpu1")
        group.set_cpuset("0")
        time.sleep(0.02)
        assert processors(one.call(agents.read, CPUINFO)) == 1
        assert one.call(agents.read, ONLINE_FILE) == b"0\n"
        assert not one.call(os.path.exists, f"{CPU_FOLDER}/cpu1")


@two_cpus
def test_a_new_limit_shows_within_the_time_to_live(
    mount: Path, age: Callable[[Group], None]
) -> None:
    """Also where the file becomes shorter, or longer."""
    with container(cpuset="0-1") as group:
        age(group)
        with pinned(mount, group) as one:
            check_that_limits_show(group, one)


def check_that_limits_show(group: Group, one: Agent) -> None:
    for cpuset in ("0", "0-1", "1", "0-1"):
        group.set_cpuset(cpuset)
        time.sleep(AFTER_VALID_S)
        assert processors(one.call(direct, CPUINFO)) == len(cpuset.split("-"))
        text = one.call(agents.read, CPUINFO)
        assert processors(text) == len(cpuset.split("-"))
        assert one.call(os.stat, CPUINFO).st_size == len(text)
        assert one.call(agents.read, ONLINE_FILE).decode() == f"{cpuset}\n"


@two_cpus
def test_a_file_read_in_one_go_is_never_of_two_moments(
    mount: Path, age: Callable[[Group], None]
) -> None:
    """Four readers, while the limits change and the page cache is dropped."""
    with ExitStack() as stack:
        stop = stack.enter_context(folder()) / "stop"
        group = stack.enter_context(container(cpuset="0"))
        age(group)
        all_of_it = [stack.enter_context(pinned(mount, group)) for _ in range(4)]
        expected = []
        for cpuset in ("0", "0-1"):
            group.set_cpuset(cpuset)
            time.sleep(AFTER_VALID_S)
            expected.append(all_of_it[0].call(agents.read, CPUINFO))
        assert [processors(text) for text in expected] == [1, 2]
        for one in all_of_it:
            one.send(reading, CPUINFO, 1 << 16, str(stop), expected, at_once)
        for change in range(fewer(20, 4)):
            group.set_cpuset(("0", "0-1")[change % 2])
            if change % 3 == 0:
                Path("/proc/sys/vm/drop_caches").write_text("1\n")
            time.sleep(LIMITS_VALID_NS / 1e9)
        stop.touch()
        for one in all_of_it:
            count, wrong = cast("tuple[int, list[str]]", one.receive())
            assert count > 0
            assert wrong == []


def test_moving_files_are_new_after_their_time_to_live(
    mount: Path, age: Callable[[Group], None]
) -> None:
    with container(memory_bytes=64 * MIB) as group:
        age(group)
        with pinned(mount, group, ALL) as one:
            for size in (96 * MIB, 80 * MIB):
                group.set_memory(size)
                time.sleep(0.05)
                found = meminfo_of(one.call(agents.read, MEMINFO).decode())
                assert found["MemTotal"] == size >> 10


def test_a_cgroup_made_anew_at_the_same_path_is_another_container(mount: Path) -> None:
    path = "/" + "ab" * 32
    names = []
    for size in (64 * MIB, 128 * MIB):
        with container(memory_bytes=size, path=path) as group, pinned(mount, group, ALL) as one:
            found = meminfo_of(one.call(agents.read, MEMINFO).decode())
            assert found["MemTotal"] == size >> 10
            names.append(one.call(link, str(mount / "self/proc")))
    assert names[0] != names[1]


# Who is led where


def test_who_is_in_no_container_is_led_to_the_live_tree(served: Daemon, mount: Path) -> None:
    """So a runtime that mounts from the host's side gives its containers what is right."""
    before = served.status()["pinned"]["outsiders"]
    assert os.readlink(mount / "self/proc") == "../proc"
    with agent() as host, container(memory_bytes=64 * MIB) as group, agent(group) as one:
        host.call(pin, str(mount), ("proc/meminfo",))
        (found,) = [m for m in mounts_of(host) if m.mount_point == MEMINFO]
        assert found.root == "/proc/meminfo"
        text = one.call(agents.read, f"/proc/{host.pid}/root{MEMINFO}")
        assert meminfo_of(text.decode())["MemTotal"] == 64 << 10
    assert served.status()["pinned"]["outsiders"] >= before + 2
    assert "walked from no container" in served.command("status").stdout
    assert "was led from the pinned tree to the live one" in served.log()


def test_a_service_of_the_host_is_no_container(mount: Path) -> None:
    """A runtime's own cgroup is not what it starts containers for."""
    with container(path="/procscope-test.service") as group, agent(group) as one:
        assert one.call(link, str(mount / "self/proc")) == "../proc"


def test_nobody_finds_the_folder_of_another_container(mount: Path) -> None:
    with container() as first, container() as second, agent(first) as one, agent(second) as other:
        name = one.call(link, str(mount / "self/proc")).partition("/")[0]
        assert re.fullmatch(r"[0-9a-f]{5}-[0-9a-f]{32}", name)
        assert one.call(link, str(mount / "self/sys")) == f"{name}/sys"
        assert other.call(link, str(mount / "self/proc")) != f"{name}/proc"
        assert sorted(other.call(os.listdir, str(mount / "self"))) == ["proc", "sys"]
        guess = f"{name[:6]}{'0' * 32}"
        for wrong in (guess, name[:5], name.upper(), "00000", "..0"):
            path = str(mount / "self" / wrong)
            if wrong != name:
                assert other.call(agents.errno_of, os.stat, path) == errno.ENOENT
        assert one.call(os.listdir, str(mount / "self" / name)) == ["proc", "sys"]


@two_cpus
def test_what_is_mounted_in_the_folder_stays_when_others_walk_there(mount: Path) -> None:
    """A runtime hides files below the CPU folder, and they must not show again."""
    with ExitStack() as stack:
        group = stack.enter_context(container(cpuset="0-1"))
        one = stack.enter_context(pinned(mount, group))
        hidden = f"{CPU_FOLDER}/cpu1"
        one.call(syscalls.mount, "tmpfs", hidden, "tmpfs", 0, "")
        one.call(syscalls.mount, "/dev/null", CPUINFO, None, syscalls.MS_BIND)
        for cpuset in ("0", "1", "0-1"):
            other = stack.enter_context(container(cpuset=cpuset))
            with pinned(mount, other, ALL) as another:
                another.call(os.listdir, str(CPU_FOLDER))
                another.call(agents.errno_of, os.stat, hidden)
        assert one.call(os.listdir, hidden) == []
        assert one.call(agents.read, CPUINFO) == b""


def mounts_of(one: Agent) -> tuple[Mount, ...]:
    """What is mounted where the process is."""
    return read_mountinfo("/proc", str(one.pid))


def test_nothing_can_be_written(mount: Path) -> None:
    with container() as group, pinned(mount, group, ALL) as one:
        for path in (CPUINFO, MEMINFO, ONLINE_FILE):
            for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC):
                assert one.call(agents.errno_of, os.open, path, flags) == errno.EROFS
            assert one.call(agents.errno_of, os.chmod, path, 0o666) == errno.EROFS


def errno_as(uid: int, path: str) -> int:
    """What a user's open(2) fails with, in a child."""
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        os._exit(agents.errno_of(os.open, path, os.O_RDONLY))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_who_may_read_what_is_checked_though_nobody_is_asked(mount: Path) -> None:
    """The kernel opens files by itself; `slabinfo` is root's on every kernel."""
    with container() as group, pinned(mount, group, (*LIMITS, "proc/slabinfo")) as one:
        for uid, expected in ((0, 0), (1000, errno.EACCES)):
            assert one.call(errno_as, uid, CPUINFO) == 0
            assert one.call(errno_as, uid, ONLINE_FILE) == 0
            assert one.call(errno_as, uid, "/proc/slabinfo") == expected


def take_lease(path: str) -> int:
    """Take a write lease on a file, and keep it."""
    fd = os.open(path, os.O_RDONLY)
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    return fd


def test_a_lease_concerns_its_own_container_alone(mount: Path) -> None:
    with ExitStack() as stack:
        groups = [stack.enter_context(container()) for _ in range(2)]
        one, other = (stack.enter_context(pinned(mount, group)) for group in groups)
        flags = os.O_RDONLY | os.O_NONBLOCK
        one.call(take_lease, CPUINFO)
        assert one.call(agents.errno_of, os.open, CPUINFO, flags) == errno.EAGAIN
        assert other.call(agents.errno_of, os.open, CPUINFO, flags) == 0
        with pinned(mount, groups[1]) as third:
            assert third.call(agents.errno_of, os.open, CPUINFO, flags) == 0


def test_what_was_opened_before_the_container_moved_is_its_own_afterwards(mount: Path) -> None:
    """Where the pinned container has gone, the reader's own view is given, as on the live tree."""
    with ExitStack() as stack:
        later = stack.enter_context(container(memory_bytes=96 * MIB))
        with container(memory_bytes=64 * MIB) as earlier:
            one = stack.enter_context(pinned(mount, earlier, ALL))
            assert b"65536 kB" in one.call(agents.read, MEMINFO)
            one.move(later)
            assert b"65536 kB" in one.call(agents.read, MEMINFO)
        found = eventually(
            lambda: meminfo_of(one.call(agents.read, MEMINFO).decode())["MemTotal"] == 96 << 10
        )
        assert found


# What outlives what


def _kill_pinned_worker(served: Daemon) -> None:
    pids = eventually(lambda: served.children("procscope-s"))
    os.kill(pids[0], signal.SIGKILL)
    eventually(lambda: served.children("procscope-s") not in ([], pids))


def _kill_every_worker(served: Daemon) -> None:
    for pid in served.workers():
        os.kill(pid, signal.SIGKILL)
    _kill_pinned_worker(served)


def _reload(served: Daemon) -> None:
    ended = served.command("reload")
    assert ended.returncode == 0, ended.stderr


def _crash(served: Daemon) -> None:
    served.stop(signal.SIGKILL)
    served.start()


def _crash_of_all_but_the_keeper(served: Daemon) -> None:
    pids = served.children("")
    served.stop(signal.SIGKILL)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    eventually(lambda: not any(alive(pid) for pid in pids))
    served.start()


def _restart(served: Daemon) -> None:
    served.stop(signal.SIGTERM)
    served.start()


FAULTS = (
    _kill_pinned_worker,
    _kill_every_worker,
    _reload,
    _crash,
    _crash_of_all_but_the_keeper,
    _restart,
)


@pytest.mark.parametrize("fault", FAULTS)
def test_no_read_fails(fault: Callable[[Daemon], None]) -> None:
    """Readers in pieces of every size see one content, whole, whatever becomes of the daemon."""
    with daemon(keeper=True) as served, ExitStack() as stack:
        stop = stack.enter_context(folder()) / "stop"
        group = stack.enter_context(container(cpuset="0", memory_bytes=64 * MIB))
        ones = [stack.enter_context(pinned(served.mountpoint, group)) for _ in range(3)]
        expected = [ones[0].call(agents.read, CPUINFO)]
        device = served.status()["pinned"]["device"]
        for one, size in zip(ones, (1, 1024, 1 << 16), strict=True):
            one.send(reading, CPUINFO, size, str(stop), expected, in_pieces)
        for _ in range(fewer(3, 1)):
            fault(served)
            time.sleep(AFTER_VALID_S)
        stop.touch()
        for one in ones:
            count, wrong = cast("tuple[int, list[str]]", one.receive())
            assert count > 0
            assert wrong == []
        assert served.status()["pinned"]["device"] == device
        with pinned(served.mountpoint, group) as later:
            assert later.call(agents.read, CPUINFO) == expected[0]


def abort(minor: str) -> None:
    """End a connection, in a mount namespace that shows them."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    syscalls.mount("fusectl", "/sys/fs/fuse/connections", "fusectl", 0)
    Path(f"/sys/fs/fuse/connections/{minor}/abort").write_text("1")


def test_an_end_of_the_connection_costs_the_live_tree_nothing() -> None:
    """It is mounted anew, and what containers had from it they get from the live tree."""
    with (
        daemon() as served,
        container(memory_bytes=64 * MIB) as group,
        pinned(served.mountpoint, group, ALL) as one,
    ):
        before = served.status()["pinned"]["device"]
        with agent() as administrator:
            administrator.call(abort, before.partition(":")[2])
        eventually(lambda: (served.status()["pinned"] or {}).get("device") not in (None, before))
        eventually(lambda: one.call(agents.errno_of, agents.read, MEMINFO) == 0)
        assert meminfo_of(one.call(agents.read, MEMINFO).decode())["MemTotal"] == 64 << 10
        with pinned(served.mountpoint, group, ALL) as later:
            found = [m for m in mounts_of(later) if m.mount_point == MEMINFO]
            assert found[-1].device == served.status()["pinned"]["device"]


def test_a_planned_stop_leaves_nothing_dead() -> None:
    """The kernel's own files are back, and the next start gives the views again."""
    with (
        daemon() as served,
        container(memory_bytes=64 * MIB) as group,
        pinned(served.mountpoint, group, ALL) as one,
    ):
        assert served.stop() == 0
        assert meminfo_of(one.call(agents.read, MEMINFO).decode())["MemTotal"] != 64 << 10
        assert not [
            m for m in mounts_of(one) if m.mount_point in (CPUINFO, MEMINFO, str(CPU_FOLDER))
        ]
        served.start()
        eventually(
            lambda: meminfo_of(one.call(agents.read, MEMINFO).decode())["MemTotal"] == 64 << 10
        )


def test_a_stop_without_a_supervisor_leaves_nothing_dead() -> None:
    """Workers of the command's own answer meanwhile."""
    with (
        daemon(keeper=True) as served,
        container(memory_bytes=64 * MIB) as group,
        pinned(served.mountpoint, group, ALL) as one,
    ):
        pids = served.children("")
        served.stop(signal.SIGKILL)
        assert served.command("stop").returncode == 0
        assert meminfo_of(one.call(agents.read, MEMINFO).decode())["MemTotal"] != 64 << 10
        assert not [m for m in mounts_of(one) if m.mount_point in (CPUINFO, MEMINFO)]
        eventually(lambda: not any(alive(pid) for pid in pids))
        assert not [m for m in read_mountinfo() if m.mount_point.startswith(str(served.mountpoint))]


def test_what_is_unmounted_is_mounted_again() -> None:
    """Whoever has its files goes on, and others find it again."""
    with (
        daemon() as served,
        container(memory_bytes=64 * MIB) as group,
        pinned(served.mountpoint, group, ALL) as one,
    ):
        mount = served.mountpoint
        before = served.status()["pinned"]["device"]
        syscalls.umount2(str(mount / "self"), syscalls.MNT_DETACH)
        assert meminfo_of(one.call(agents.read, MEMINFO).decode())["MemTotal"] == 64 << 10
        pinned_mount = str(mount / "self")
        eventually(lambda: pinned_mount in {m.mount_point for m in read_mountinfo()}, 10.0)
        with pinned(mount, group, ALL) as later:
            found = [m for m in mounts_of(later) if m.mount_point == MEMINFO]
            assert found[-1].device == before


def test_commands_take_from_it_what_follows_the_limits(mount: Path) -> None:
    names = ("--mountpoint", str(mount))
    for options, of_cpuinfo, of_meminfo in (
        ((), "self/proc", "proc"),
        (("--pinned", "limits"), "self/proc", "proc"),
        (("--pinned", "all"), "self/proc", "self/proc"),
        (("--pinned", "none"), "proc", "proc"),
        (("--live",), "proc", "proc"),
    ):
        said = procscope_command("docker-args", *names, *options).stdout.split()
        assert f"{mount}/{of_cpuinfo}/cpuinfo:{CPUINFO}:ro" in said
        assert f"{mount}/{of_meminfo}/meminfo:{MEMINFO}:ro" in said
