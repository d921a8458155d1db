"""Containers and hosts in a bad way: right bytes or the host's, a line in the log, never a hang."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from procscope.linux import syscalls
from procscope.observe.records import RecordStore
from tests.faults.checks import FILES, Checker, Share, WrongError, form_of_host, host_share
from tests.faults.figures import figure
from tests.faults.readers import MIB, Allowed, crowd
from tests.faults.scale import scaled
from tests.faults.service import Service, service
from tests.integration import agents
from tests.integration.agents import Agent, agent, fork
from tests.integration.cgroups import (
    ROOT,
    Group,
    container,
    flat,
    mount_of,
    write,
)
from tests.integration.daemons import alive
from tests.integration.files import ONLINE
from tests.integration.waiting import eventually

FREEZES = 20
OOM_KILLS = 8
FEW_DESCRIPTORS = 64
MANY_CONTAINERS = 60
LOG_BOUND_S = 5.0
UNRECORDED = Allowed(steps_back=True)
"""What one worker has handed out cannot be told to the other."""
HOSTS_TOO = Allowed(hosts=True, steps_back=True)


# A frozen container.


def freeze(group: Group, *, frozen: bool) -> None:
    """Freeze a container, or let it go on; return when that has happened."""
    v1 = mount_of("freezer")
    if v1 is not None and v1.version == 1:
        state = group.directory("freezer") / "freezer.state"
        word = "FROZEN" if frozen else "THAWED"
        write(state, word)
        eventually(lambda: state.read_text().strip() == word)
        return
    directory = group.directory("")
    write(directory / "cgroup.freeze", str(int(frozen)))
    eventually(lambda: flat(directory / "cgroup.events")["frozen"] == str(int(frozen)))


def test_a_container_frozen_in_the_middle_of_a_read_disturbs_nobody() -> None:
    """It goes on where it was when it thaws, whatever has become of the worker meanwhile."""
    with service("--workers", "2") as served, crowd(served.mountpoint) as readers:
        frozen = readers.groups[0]
        try:
            for number in range(scaled(FREEZES)):
                freeze(frozen, frozen=True)
                if number % 2:
                    kill_workers(served)
                readers.others(frozen).read_some()
                freeze(frozen, frozen=False)
                readers.read_some()
        finally:
            freeze(frozen, frozen=False)
        tally = readers.stop()
        figure(f"frozen {scaled(FREEZES)} times: {tally}")
        tally.all_right()


def kill_workers(served: Service) -> None:
    for pid in served.workers():
        os.kill(pid, signal.SIGKILL)


def test_a_container_at_its_limit_of_processes_reads() -> None:
    with service("--workers", "2") as served, crowd(served.mountpoint) as readers:
        full = readers.groups[0]
        write(full.directory("pids") / "pids.max", "1")
        with agent() as newcomer:
            newcomer.move(full)
            with pytest.raises(BlockingIOError):
                newcomer.call(fork_and_end)
            readers.read_some(20)
        tally = readers.stop()
        figure(f"at its pids limit: {tally}")
        tally.all_right()


def fork_and_end() -> None:
    pid = fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def test_a_container_that_runs_out_of_memory_in_a_loop_reads() -> None:
    """The killer takes the process that asks for more, again and again; its neighbours read."""
    with service("--workers", "2") as served, crowd(served.mountpoint) as readers:
        poor = readers.groups[0]
        with agent(poor) as greedy:
            kills = scaled(OOM_KILLS)
            for pid in poor.processes():
                spare(pid)
            greedy.send(be_killed, kills, 2 * 100 * MIB)
            assert greedy.receive() == [signal.SIGKILL] * kills
        readers.read_some()
        tally = readers.stop()
        figure(f"{kills} processes killed for want of memory beside it: {tally}")
        tally.all_right()


def spare(pid: int) -> None:
    """Let the killer take others, where that may be asked for: it needs CAP_SYS_RESOURCE.

    All the test process's memory is theirs too: they are as large as a child that has not yet said
    that it is the one.
    """
    with suppress(PermissionError):
        Path(f"/proc/{pid}/oom_score_adj").write_text("-1000")


def be_killed(times: int, size_bytes: int) -> list[int]:
    """Have children that use so much memory, one after the other; return what killed each."""
    signals = []
    for _ in range(times):
        pid = fork()
        if pid == 0:
            try:
                Path("/proc/self/oom_score_adj").write_text("1000")
                bytearray(size_bytes).replace(b"\0", b"\1")
            finally:
                os._exit(1)
        signals.append(os.WTERMSIG(os.waitpid(pid, 0)[1]))
    return signals


def test_a_cgroup_that_goes_between_open_and_read_with_all_workers() -> None:
    """The content is of the open, and belongs to no worker."""
    with service("--workers", "2") as served, agent() as reader:
        paths = [str(served.mountpoint / "proc" / name) for name in FILES]
        for number in range(scaled(10)):
            limit_mib = 100 + number
            with container(memory_bytes=limit_mib * MIB, cpuset=str(ONLINE[0])) as group:
                reader.move(group)
                opened = reader.call(open_all, paths)
                reader.move(ROOT)
            kill_workers(served)
            texts = reader.call(read_and_close, opened)
            checker = Checker(Share(limit_mib << 10, ONLINE[:1]), form_of_host())
            for name, text in zip(FILES, texts, strict=True):
                checker.check(name, text)


def open_all(paths: list[str]) -> list[int]:
    return [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in paths]


def read_and_close(descriptors: list[int]) -> list[bytes]:
    texts = []
    for descriptor in descriptors:
        with open(descriptor, "rb", buffering=0) as file:
            texts.append(file.read())
    return texts


# A host without disk space, without descriptors, that cannot be written to.


def right_or_hosts(reader: Agent, mount: Path, share: Share) -> bool:
    """Read every file; fail where one is neither right nor the host's; True if all are right."""
    host, form = host_share(), form_of_host()
    right = True
    for name in FILES:
        data = reader.call(agents.read, str(mount / "proc" / name))
        try:
            Checker(share, form).check(name, data)
        except WrongError:
            Checker(host, form).check(name, data)
            right = False
    return right


@contextmanager
def small_disk(place: Path) -> Iterator[None]:
    """A disk of its own at a folder, of 256 KiB."""
    place.mkdir(exist_ok=True)
    syscalls.mount("tmpfs", str(place), "tmpfs", 0, "size=256k")
    try:
        yield
    finally:
        syscalls.umount2(str(place), syscalls.MNT_DETACH)


def fill(place: Path) -> None:
    """Leave no free byte and no hole."""
    with (place / "filler").open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1 << 9, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


def wait_for_log(served: Service, text: str) -> None:
    eventually(lambda: text in served.log(), LOG_BOUND_S)
    assert "Traceback" not in served.log()


def test_a_disk_that_fills_while_it_serves() -> None:
    with service("--workers", "2", started=False) as served, small_disk(served.run_directory):
        served.start()
        fill(served.run_directory)
        with crowd(served.mountpoint, allowed=UNRECORDED) as readers:
            readers.read_some(20)
            kill_workers(served)
            readers.read_some(20)
            tally = readers.stop()
        figure(f"with a full disk: {tally}")
        tally.all_right()
        wait_for_log(served, "No space left on device")
        served.close()


def test_what_was_told_before_the_disk_filled_is_not_taken_back() -> None:
    """The space for a container's record is taken when it becomes known."""
    with service("--workers", "2", started=False) as served, small_disk(served.run_directory):
        served.start()
        with crowd(served.mountpoint) as readers:
            fill(served.run_directory)
            for _ in range(scaled(5)):
                readers.read_some(10)
                kill_workers(served)
            readers.read_some(20)
            tally = readers.stop()
        figure(f"with a disk that fills: {tally}")
        tally.all_right()
        served.close()


def test_a_disk_that_is_full_when_it_starts() -> None:
    """It serves, or says in one line why not."""
    with service("--workers", "2", started=False) as served, small_disk(served.run_directory):
        fill(served.run_directory)
        try:
            served.start()
        except AssertionError:
            assert served.wait() == 1
            (line,) = served.log().splitlines()
            assert "No space left on device" in line
        else:
            with agent() as reader, container(memory_bytes=100 * MIB) as group:
                reader.move(group)
                right_or_hosts(reader, served.mountpoint, Share(100 << 10, ONLINE))
            wait_for_log(served, "No space left on device")
        served.close()


def test_a_crash_while_the_disk_is_full() -> None:
    """Another supervisor comes up: what it has to write is there already."""
    with service("--workers", "2", started=False) as served, small_disk(served.run_directory):
        served.start()
        with crowd(served.mountpoint) as readers:
            fill(served.run_directory)
            for _ in range(scaled(3)):
                served.kill_supervisor()
                served.start()
                readers.read_some(20)
            tally = readers.stop()
        figure(f"supervisor killed with a full disk: {tally}")
        tally.all_right()
        served.close()


def test_a_disk_that_turns_read_only() -> None:
    """As the kernel does after an I/O error: what is open stays so, and nothing can be made."""
    with service("--workers", "2", started=False) as served, small_disk(served.run_directory):
        served.start()
        with read_only(served.run_directory):
            with crowd(served.mountpoint, allowed=UNRECORDED) as readers:
                readers.read_some(20)
                kill_workers(served)
                readers.read_some(20)
                tally = readers.stop()
            figure(f"with a read-only disk: {tally}")
            tally.all_right()
            wait_for_log(served, "Read-only file system")
        served.close()


def test_the_sampler_goes_on_where_it_cannot_remove_a_record() -> None:
    with (
        service("--workers", "2", started=False) as served,
        small_disk(served.run_directory),
        ExitStack() as stack,
    ):
        served.start()
        before = sampler(served)
        with container(memory_bytes=100 * MIB) as group:
            with agent(group) as reader:
                reader.call(agents.read, str(served.mountpoint / "proc" / "loadavg"))
                eventually(lambda: are_sampled(served), LOG_BOUND_S)
            stack.enter_context(read_only(served.run_directory))
            held = set(served.records_directory.iterdir())
        wait_for_log(served, "keeps a record of what has gone")
        assert sampler(served) == before
        stack.close()
        eventually(lambda: set(served.records_directory.iterdir()) < held, LOG_BOUND_S)
        served.close()


def sampler(served: Service) -> int:
    """A process gets its name a moment after its start."""

    def found() -> list[int]:
        return [pid for pid, name in served.processes().items() if name == "procscope-load"]

    (pid,) = eventually(found)
    return pid


def are_sampled(served: Service) -> bool:
    """Whether the sampler has seen every container that has a record."""
    store = RecordStore(str(served.records_directory))
    records = [record for name in store.names() if (record := store.open_existing(name))]
    try:
        return all(record.read_load() for record in records)
    finally:
        for record in records:
            record.close()


@contextmanager
def read_only(place: Path) -> Iterator[None]:
    """Put a mount that cannot be written to over a folder, of the folder itself."""
    syscalls.mount(str(place), str(place), None, syscalls.MS_BIND)
    try:
        flags = syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_RDONLY
        syscalls.mount(None, str(place), None, flags)
        yield
    finally:
        syscalls.umount2(str(place), syscalls.MNT_DETACH)


def test_a_read_only_root_at_its_start() -> None:
    """It serves, or says in one line why not."""
    with service("--workers", "2", started=False) as served, small_disk(served.run_directory):
        flags = syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_RDONLY
        syscalls.mount(None, str(served.run_directory), None, flags)
        try:
            served.start()
        except AssertionError:
            assert served.wait() == 1
            (line,) = served.log().splitlines()
            assert "Read-only file system" in line
        else:
            with container(memory_bytes=100 * MIB) as group, agent(group) as reader:
                right_or_hosts(reader, served.mountpoint, Share(100 << 10, ONLINE))
            wait_for_log(served, "Read-only file system")
        served.close()


def test_a_daemon_with_few_descriptors() -> None:
    """Readers of more containers than it can keep files open for."""
    with service("--workers", "2", started=False) as served:
        served.prefix = ("prlimit", f"--nofile={FEW_DESCRIPTORS}:{FEW_DESCRIPTORS}")
        served.start()
        count = scaled(MANY_CONTAINERS)
        right = 0
        with ExitStack() as stack, agent() as reader:
            for number in range(count):
                limit_mib = 50 + number
                group = stack.enter_context(container(memory_bytes=limit_mib * MIB))
                reader.move(group)
                right += right_or_hosts(reader, served.mountpoint, Share(limit_mib << 10, ONLINE))
            reader.move(ROOT)
        with crowd(served.mountpoint) as readers:
            readers.read_some(20)
            tally = readers.stop()
        figure(f"with {FEW_DESCRIPTORS} descriptors: {right} of {count} right; {tally}")
        tally.all_right()
        assert right == count
        assert "Too many open files" not in served.log()


def test_a_daemon_whose_descriptors_run_out() -> None:
    """The limit is lowered below what is open: nothing can be opened any more."""
    with (
        service("--workers", "2") as served,
        crowd(served.mountpoint, allowed=HOSTS_TOO) as readers,
    ):
        for pid in served.workers():
            shrink_descriptors(pid)
        began_s = time.monotonic()
        with container(memory_bytes=50 * MIB) as group, agent(group) as reader:
            right = right_or_hosts(reader, served.mountpoint, Share(50 << 10, ONLINE))
        took_s = time.monotonic() - began_s
        figure(f"no free descriptors: new container right: {right}, {took_s * 1000:.0f} ms")
        wait_for_log(served, "Too many open files")
        assert all(alive(pid) for pid in served.workers())
        kill_workers(served)
        readers.read_some()
        tally = readers.stop()
        figure(f"no free descriptors: {tally}")
        tally.all_right()


def shrink_descriptors(pid: int) -> None:
    import resource

    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, 3))
