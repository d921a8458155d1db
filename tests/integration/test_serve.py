"""The daemon from its start to its end: signals, readiness, crashes, and what follows them."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest

from procscope.daemon.config import ServeConfig
from procscope.daemon.keeping import find_keeper
from procscope.errors import ExitCode
from procscope.linux import syscalls
from tests.integration import agents
from tests.integration.agents import agent
from tests.integration.cgroups import container
from tests.integration.daemons import (
    COMMAND,
    alive,
    daemon,
    is_mounted,
    mounted_types,
    procscope_command,
)
from tests.integration.files import meminfo, proc
from tests.integration.waiting import eventually

MIB = 1 << 20


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_unmounts_and_ends_it_well(number: signal.Signals) -> None:
    with daemon() as served:
        children = served.children("")
        assert served.stop(number) == 0
        assert not is_mounted(served.mountpoint)
        assert os.listdir(served.mountpoint) == []
        assert not any(alive(pid) for pid in children)
        assert f"stopping on {number.name}" in served.log()
        assert "Traceback" not in served.log()


def test_where_nothing_can_be_mounted_no_keeper_is_left(tmp_path: Path) -> None:
    """It is started before the mount, which it is ready for earlier so."""
    config = ServeConfig(mountpoint=str(tmp_path / "missing"), run_directory=str(tmp_path / "run"))
    run = procscope_command("serve", config.mountpoint, "--run-directory", config.run_directory)
    assert run.returncode == ExitCode.FAILED
    assert run.stderr.count("\n") == 1
    assert find_keeper(config.state_directory, config.mountpoint) is None


def test_a_signal_ends_it_while_files_are_open_and_read() -> None:
    """The mount is detached: whoever has a file open gets an error, nobody hangs."""
    with daemon() as served, container() as group, agent(group) as reader:
        path = str(served.mountpoint / "proc/stat")
        reader.call(os.open, path, os.O_RDONLY)
        reader.send(read_until_it_fails, path)
        assert served.stop() == 0
        assert reader.receive() in (errno.ENOTCONN, errno.ECONNABORTED, errno.ENOENT)
        assert not is_mounted(served.mountpoint)


def read_until_it_fails(path: str) -> int:
    while True:
        code = agents.errno_of(agents.read, path)
        if code:
            return code


def test_the_service_manager_is_told() -> None:
    with daemon() as served:
        assert served.notifications == ["READY=1", f"STATUS=Serving {served.mountpoint}"]
        # What is ready answers.
        assert (served.mountpoint / "proc/meminfo").read_text().startswith("MemTotal:")


def test_so_many_workers_as_asked_for_and_one_sampler() -> None:
    with daemon("--workers", "3") as served:
        eventually(lambda: len(served.workers()) == 3)
        eventually(lambda: len(served.children("procscope-load")) == 1)
        # The one that looks for dead mounts ends soon.
        eventually(lambda: len(served.children("")) == 5)
        eventually(lambda: len(served.children("procscope-s")) == 1)


def test_a_killed_worker_is_replaced_and_that_is_logged() -> None:
    with (
        daemon("--workers", "1") as served,
        container(memory_bytes=100 * MIB) as group,
        agent(group) as reader,
    ):
        descriptor = reader.call(os.open, str(served.mountpoint / "proc/uptime"), os.O_RDONLY)
        opened = reader.call(os.pread, descriptor, 100, 0)
        for _ in range(3):
            served.kill_worker()
            assert meminfo(served.mountpoint, reader)["MemTotal"] == 100 << 10
        # What was opened before is kept: contents belong to no worker.
        assert reader.call(os.pread, descriptor, 100, 1) == opened[1:]
        assert "worker 0 was killed by SIGKILL; starting another" in served.log()


def test_workers_that_are_killed_while_they_answer_lose_no_request() -> None:
    """Their successors answer what they had read."""
    with (
        daemon("--workers", "2") as served,
        container(memory_bytes=100 * MIB) as group,
        agent(group) as one,
        agent(group) as two,
    ):
        for reader in (one, two):
            reader.send(agents.read_many, str(served.mountpoint / "proc/meminfo"), 1500)
        for _ in range(12):
            victim = eventually(served.workers)[0]
            send_signal(victim, signal.SIGKILL)
            eventually(partial(has_ended, victim))
        for reader in (one, two):
            texts = reader.receive()
            assert isinstance(texts, list)
            assert all(text.startswith(b"MemTotal:         102400 kB\n") for text in texts)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_is_stopped_costs_its_life_and_no_read(workers: int) -> None:
    """With one worker nobody else is there to read the request: it stays with the kernel."""
    with (
        daemon("--workers", str(workers), "--deadline", "0.5") as served,
        container(memory_bytes=100 * MIB) as group,
        agent(group) as reader,
    ):
        reader.send(agents.read_many, str(served.mountpoint / "proc/meminfo"), 2000)
        for _ in range(2):
            victim = eventually(served.workers)[0]
            send_signal(victim, signal.SIGSTOP)
            eventually(partial(has_ended, victim))
        texts = reader.receive()
        assert isinstance(texts, list)
        assert all(text.startswith(b"MemTotal:         102400 kB\n") for text in texts)
        assert "has not answered for 0.5 s; killing it" in served.log()


def test_a_worker_that_is_stopped_and_goes_on_in_time_lives() -> None:
    with daemon("--workers", "1", "--deadline", "30") as served:
        (worker,) = eventually(served.workers)
        for number in (signal.SIGSTOP, signal.SIGCONT):
            os.kill(worker, number)
        assert (served.mountpoint / "proc/meminfo").read_bytes().startswith(b"MemTotal:")
        assert served.workers() == [worker]


def send_signal(pid: int, number: signal.Signals) -> None:
    """To a worker that may just have ended: the last one may still be listed."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def has_ended(pid: int) -> bool:
    return not alive(pid)


def test_a_killed_sampler_is_replaced() -> None:
    with daemon() as served:
        (sampler,) = eventually(lambda: served.children("procscope-load"))
        os.kill(sampler, signal.SIGKILL)
        (other,) = eventually(
            lambda: [pid for pid in served.children("procscope-load") if pid != sampler]
        )
        assert alive(other)
        assert "sampler was killed by SIGKILL" in served.log()


def test_a_crash_takes_the_workers_along_and_the_next_start_replaces_the_dead_mount() -> None:
    with daemon() as served:
        served.kill()
        assert agents.errno_of(os.listdir, str(served.mountpoint)) in (
            errno.ENOTCONN,
            errno.ECONNABORTED,
        )
        served.start()
        assert mounted_types(served.mountpoint) == ["fuse.procscope"]
        assert f"{served.mountpoint} was left mounted by a daemon that died; replacing it" in (
            served.log()
        )
        assert (served.mountpoint / "proc/meminfo").read_text().startswith("MemTotal:")


def test_unmounted_by_somebody_else_it_ends_with_a_line() -> None:
    with daemon() as served:
        syscalls.umount2(str(served.mountpoint), syscalls.MNT_DETACH)
        assert served.process is not None
        assert served.process.wait() == 1
        assert f"{served.mountpoint} was unmounted by somebody else" in served.log()
        assert "Traceback" not in served.log()


def test_the_same_line_is_not_logged_without_end() -> None:
    with daemon("--workers", "1") as served:
        for _ in range(8):
            served.kill_worker()
        assert served.log().count("worker 0 was killed") == 5


def test_at_the_place_of_lxcfs_it_has_its_type() -> None:
    """In a mount namespace of its own, as a real one may be there, which stays as it is."""
    place = Path("/var/lib/lxcfs")
    before = mounted_types(place)
    hide = "umount -l /var/lib/lxcfs 2>&-; mount -t tmpfs tmpfs /var/lib"
    script = f'{hide}; exec "$@" serve /var/lib/lxcfs --no-keeper --run-directory "$0"'
    with daemon() as any_folder:
        run_directory = any_folder.run_directory / "lxcfs"
        with subprocess.Popen(
            ["unshare", "-m", "sh", "-c", script, str(run_directory), *COMMAND],
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stderr is not None
                assert "serves /var/lib/lxcfs" in process.stderr.readline()
                assert mounted_types(place, process.pid) == ["fuse.lxcfs"]
                assert mounted_types(place) == before
            finally:
                process.terminate()
            assert process.wait() == 0


def test_only_the_files_that_were_asked_for_are_there() -> None:
    with daemon("--files", "meminfo,/proc/uptime,pressure/cpu") as served:
        found = [
            f"{folder}/{name}".removeprefix(f"{served.mountpoint}/")
            for folder, _, names in os.walk(served.mountpoint)
            for name in names
        ]
        assert sorted(found) == ["proc/meminfo", "proc/pressure/cpu", "proc/uptime"]


def test_two_daemons_do_not_disturb_each_other() -> None:
    with (
        daemon() as one,
        daemon() as other,
        container(memory_bytes=100 * MIB) as group,
        agent(group) as reader,
    ):
        for served in (one, other):
            assert meminfo(served.mountpoint, reader)["MemTotal"] == 100 << 10
        assert one.stop() == 0
        assert meminfo(other.mountpoint, reader)["MemTotal"] == 100 << 10


def test_with_debug_every_request_is_logged() -> None:
    with daemon("--debug") as served, agent() as reader:
        proc(served.mountpoint, "meminfo", reader)
        log = served.log()
        assert "OPEN" in log
        assert "READ" in log
        assert "Traceback" not in log
