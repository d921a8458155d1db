"""What a container sees when the daemon is killed, restarted, reloaded or stopped: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from procscope.daemon.config import ServeConfig
from procscope.daemon.estate import close_all, read_state
from procscope.daemon.inheritance import orphans
from procscope.daemon.keeping import find_keeper
from procscope.fuse.wire import InitFlag
from procscope.linux import syscalls
from procscope.linux.mountinfo import read_mountinfo
from tests.integration.agents import Agent, agent, errno_of
from tests.integration.cgroups import container
from tests.integration.daemons import Daemon, alive, daemon, is_mounted
from tests.integration.files import meminfo
from tests.integration.waiting import eventually

MIB = 1 << 20


@pytest.fixture
def served() -> Iterator[Daemon]:
    with daemon("--workers", "2", keeper=True) as one:
        yield one


@pytest.fixture
def reader() -> Iterator[Agent]:
    with container(memory_bytes=100 * MIB) as group, agent(group) as one:
        yield one


def device(served: Daemon) -> str:
    """Of the superblock: another connection has another one."""
    (mount,) = [one for one in read_mountinfo() if one.mount_point == str(served.mountpoint)]
    return mount.device


def sees_its_limit(served: Daemon, reader: Agent) -> bool:
    return meminfo(served.mountpoint, reader)["MemTotal"] == 100 << 10


def processes(served: Daemon) -> list[int]:
    """Those that serve, besides the supervisor."""
    status = served.status()
    return [worker["pid"] for worker in status["workers"]] + [status["keeper"]["pid"]]


def crash(served: Daemon) -> None:
    """Kill the supervisor alone."""
    assert served.stop(signal.SIGKILL) == -signal.SIGKILL


def test_after_a_crash_the_workers_serve_on(served: Daemon, reader: Agent) -> None:
    serving = processes(served)
    crash(served)
    assert sees_its_limit(served, reader)
    assert all(alive(pid) for pid in serving)


def test_the_next_one_takes_over(served: Daemon, reader: Agent) -> None:
    before, serving = device(served), processes(served)
    path = str(served.mountpoint / "proc/uptime")
    descriptor = reader.call(os.open, path, os.O_RDONLY)
    opened = reader.call(os.pread, descriptor, 100, 0)
    crash(served)
    served.start()
    assert device(served) == before
    assert reader.call(os.pread, descriptor, 100, 1) == opened[1:]
    assert sees_its_limit(served, reader)
    assert "taking over" in served.log()
    assert [alive(pid) for pid in serving] == [False, False, True], "the keeper stays"


def test_without_the_keeper_too_as_long_as_a_worker_lives(served: Daemon, reader: Agent) -> None:
    before, (worker, _, keeper) = device(served), processes(served)
    crash(served)
    for pid in (worker, keeper):
        os.kill(pid, signal.SIGKILL)
    served.start()
    assert device(served) == before
    assert sees_its_limit(served, reader)
    assert f"taking over {served.mountpoint} from worker" in served.log()


def test_the_keeper_alone_is_enough(served: Daemon, reader: Agent) -> None:
    """A request that is made meanwhile waits."""
    before, (*workers, _) = device(served), processes(served)
    crash(served)
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    reader.send(meminfo_total, str(served.mountpoint / "proc/meminfo"))
    served.start()
    assert device(served) == before
    assert reader.receive() == b"102400"


def meminfo_total(path: str) -> bytes:
    return Path(path).read_bytes().split()[1]


def test_where_requests_are_kept_may_be_unknown_to_the_next_release(
    served: Daemon, reader: Agent
) -> None:
    """The kernel sends them again, where it can; else the mount is made anew, and still serves."""
    before, (*workers, _) = device(served), processes(served)
    config = ServeConfig(mountpoint=str(served.mountpoint), run_directory=str(served.run_directory))
    keeper = find_keeper(config.state_directory, config.mountpoint)
    assert keeper is not None
    kept = keeper.get()
    connection = read_state(kept["state"]).connection
    crash(served)
    # A request that nobody answers is in a stopped worker's slots, or still with the kernel.
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    reader.send(meminfo_total, str(served.mountpoint / "proc/meminfo"))
    os.pwrite(kept["slots"], b"another layout", 0)
    keeper.close()
    close_all(kept)
    served.start()
    if connection.has(InitFlag.FUSE_HAS_RESEND):
        assert device(served) == before
        assert reader.receive() == b"102400"
    assert sees_its_limit(served, reader)
    assert not any(alive(worker) for worker in workers)


def test_a_keeper_that_is_killed_is_replaced(served: Daemon, reader: Agent) -> None:
    keeper = processes(served)[-1]
    os.kill(keeper, signal.SIGKILL)
    eventually(lambda: processes(served)[-1] != keeper)
    assert "the keeper has ended; starting another" in served.log()
    before = device(served)
    crash(served)
    served.start()
    assert device(served) == before
    assert sees_its_limit(served, reader)


def test_sigterm_leaves_the_workers_to_the_next_one(served: Daemon, reader: Agent) -> None:
    before = device(served)
    assert served.stop() == 0
    assert sees_its_limit(served, reader)
    served.start()
    assert device(served) == before


def test_a_second_daemon_is_refused(served: Daemon) -> None:
    ended = served.command("serve")
    assert ended.returncode == 1
    assert f"{served.mountpoint} is already served by another daemon" in ended.stderr


@pytest.mark.parametrize("crashed", [False, True])
def test_stop_leaves_nothing_behind(served: Daemon, crashed: bool) -> None:
    serving = processes(served)
    if crashed:
        crash(served)
    ended = served.command("stop")
    assert (ended.returncode, ended.stdout) == (0, "stopped\n")
    assert not is_mounted(served.mountpoint)
    eventually(lambda: not any(alive(pid) for pid in serving))
    again = served.command("stop")
    assert (again.returncode, again.stdout) == (0, f"nothing serves {served.mountpoint}\n")


@pytest.mark.parametrize(("before", "after"), [("1", "3"), ("3", "1")])
def test_the_next_one_may_have_another_number_of_workers(before: str, after: str) -> None:
    with daemon("--workers", before, keeper=True) as one:
        (*old, _) = processes(one)
        crash(one)
        one.options = ("--workers", after)
        one.start()
        (*new, _) = processes(one)
        assert (len(old), len(new)) == (int(before), int(after))
        assert not any(alive(pid) for pid in old)
        assert (one.mountpoint / "proc/meminfo").read_text().startswith("MemTotal:")


@pytest.mark.parametrize("by_signal", [False, True])
def test_a_reload_keeps_pid_mount_and_open_files(
    served: Daemon, reader: Agent, by_signal: bool
) -> None:
    before, pid, (*workers, keeper) = device(served), served.pid, processes(served)
    descriptor = reader.call(os.open, str(served.mountpoint / "proc/uptime"), os.O_RDONLY)
    opened = reader.call(os.pread, descriptor, 100, 0)
    if by_signal:
        os.kill(pid, signal.SIGHUP)
        eventually(lambda: served.log().count("serves") == 2)
    else:
        ended = served.command("reload")
        assert ended.returncode == 0, ended.stderr
        assert f"serves {served.mountpoint}" in ended.stdout
    status = served.status()
    assert (status["pid"], status["reloads"]) == (pid, 1)
    assert device(served) == before
    assert reader.call(os.pread, descriptor, 100, 1) == opened[1:]
    assert sees_its_limit(served, reader)
    (*successors, same_keeper) = processes(served)
    assert same_keeper == keeper
    assert not set(successors) & set(workers)
    # Nothing is left of those before, not even a zombie.
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert not set(map(str, workers)) & set(children)


def test_a_mount_that_was_taken_away_is_mounted_again(served: Daemon, reader: Agent) -> None:
    """As long as a container has it: here a process in a mount namespace of its own."""
    before = device(served)
    reader.call(syscalls.unshare, syscalls.CLONE_NEWNS)
    reader.call(syscalls.mount, None, "/", None, syscalls.MS_REC | MS_PRIVATE)
    crash(served)
    syscalls.umount2(str(served.mountpoint), syscalls.MNT_DETACH)
    served.start()
    assert device(served) == before
    assert sees_its_limit(served, reader)
    assert (served.mountpoint / "proc/meminfo").read_text().startswith("MemTotal:")


MS_PRIVATE = 1 << 18


def test_an_aborted_connection_is_made_anew(served: Daemon, reader: Agent) -> None:
    """As an administrator does it by /sys/fs/fuse/connections, in a namespace that has it."""
    minor = device(served).partition(":")[2]
    reader.call(syscalls.unshare, syscalls.CLONE_NEWNS)
    reader.call(syscalls.mount, None, "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
    reader.call(syscalls.mount, "fusectl", "/sys/fs/fuse/connections", "fusectl", 0)
    reader.call(write, f"/sys/fs/fuse/connections/{minor}/abort", "1")
    eventually(lambda: "mounting" in served.log())
    path = str(served.mountpoint / "proc/meminfo")
    eventually(lambda: not errno_of(os.stat, path))
    eventually(lambda: not reader.call(errno_of, os.stat, path))
    assert sees_its_limit(served, reader)


def write(path: str, text: str) -> None:
    Path(path).write_text(text)


def test_the_daemon_tells_of_itself(served: Daemon) -> None:
    ended = served.command("status")
    assert ended.returncode == 0
    assert f"serves {served.mountpoint}" in ended.stdout
    assert f"pid {served.pid}" in ended.stdout
    crash(served)
    ended = served.command("status")
    assert ended.returncode == 1
    assert "workers serve on" in ended.stderr


@pytest.mark.parametrize("name", ["status", "reload"])
def test_without_a_daemon_there_is_a_line(name: str) -> None:
    with daemon() as one:
        one.stop()
        ended = one.command(name)
        assert ended.returncode == 1
        (line,) = ended.stderr.splitlines()
        assert "procscope serve" in line


WORKER_ELSEWHERE = """
import os, sys
from procscope.daemon.estate import STATE_MEMFD
from procscope.linux import syscalls
os.memfd_create(STATE_MEMFD)
device = os.open(sys.argv[1] + "/fuse", os.O_RDWR)
syscalls.set_name("procscope-w0")
print("ready", flush=True)
sys.stdin.read()
"""
WITH_ITS_DEVICES = 'mount -t tmpfs none "$1" && mknod "$1/fuse" c 10 229 && exec "$0" -c "$2" "$1"'


def test_what_a_worker_of_another_container_holds_is_found(tmp_path: Path) -> None:
    """Its /dev is not ours, and so the device's name is another."""
    command = ("unshare", "--mount", "sh", "-c", WITH_ITS_DEVICES, sys.executable)
    worker = subprocess.Popen(
        [*command, str(tmp_path), WORKER_ELSEWHERE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with worker:
        assert worker.stdout is not None
        assert worker.stdin is not None
        assert worker.stdout.readline() == b"ready\n"
        devices = []
        for identity, fds in orphans(ServeConfig()):
            if identity.pid == worker.pid:
                devices.append(os.fstat(fds["fuse"]).st_rdev)
            close_all(fds)
        worker.stdin.close()
    assert devices == [os.makedev(10, 229)]
