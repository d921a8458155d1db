"""Which container a reader is in, on this kernel: its numbers and never another's."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.integration import agents
from tests.integration.agents import Agent, agent
from tests.integration.cgroups import ROOT, Group, container, made, new_id, version_of, write
from tests.integration.files import meminfo, meminfo_of, proc, stat
from tests.integration.waiting import eventually, fewer

MIB = 1 << 20
KIB_PER_MIB = 1 << 10
NS_LAST_PID = Path("/proc/sys/kernel/ns_last_pid")


def mem_total_mib(mount: Path, reader: Agent) -> int:
    return meminfo(mount, reader)["MemTotal"] // KIB_PER_MIB


@pytest.mark.parametrize(
    "path",
    [
        "/{id}",
        "/docker-{id}.scope",
        "/cri-containerd-{id}.scope",
        "/libpod-{id}.scope",
        "/crio-{id}.scope",
        "/lxc.payload.test-{id}",
    ],
)
def test_a_reader_in_a_container_sees_its_limit(mount: Path, path: str) -> None:
    with (
        container(memory_bytes=100 * MIB, path=path.format(id=new_id())) as group,
        agent(group) as reader,
    ):
        assert mem_total_mib(mount, reader) == 100


@pytest.mark.parametrize("child", ["init.scope", "system.slice", "anything"])
def test_a_reader_in_a_sub_cgroup_sees_its_containers_limit(mount: Path, child: str) -> None:
    """Systemd inside a container divides it; what it makes are no containers."""
    with (
        container(memory_bytes=100 * MIB) as group,
        group.plain_child(child) as inner,
        inner.plain_child("deeper") as deeper,
        agent(inner) as reader,
        agent(deeper) as deep_reader,
    ):
        assert mem_total_mib(mount, reader) == 100
        assert mem_total_mib(mount, deep_reader) == 100


def test_a_limit_that_something_inside_sets_is_not_the_containers(mount: Path) -> None:
    with (
        container(memory_bytes=100 * MIB) as group,
        group.child("service") as inner,
        agent(inner) as reader,
    ):
        inner.set_memory(50 * MIB)
        assert mem_total_mib(mount, reader) == 100


def test_a_container_in_a_container_has_its_own_view(mount: Path) -> None:
    with (
        container(memory_bytes=100 * MIB) as outer,
        outer.child(new_id()) as inner,
        agent(inner) as reader,
    ):
        assert mem_total_mib(mount, reader) == 100  # the outer limit binds
        inner.set_memory(60 * MIB)
        # The last rendering may be given out for some milliseconds.
        eventually(lambda: mem_total_mib(mount, reader) == 60)
        outer.set_memory(80 * MIB)
        assert mem_total_mib(mount, reader) == 60
        inner.set_memory(None)
        eventually(lambda: mem_total_mib(mount, reader) == 80)


@contextmanager
def unnamed(name: str, memory_bytes: int) -> Iterator[Group]:
    """A cgroup that no known runtime would have made."""
    with made(f"/{name}-{new_id()[:8]}") as group:
        group.set_memory(memory_bytes)
        yield group


def shell(script: str) -> str:
    return subprocess.run(
        ["sh", "-ec", script], stdout=subprocess.PIPE, check=True, text=True
    ).stdout


def enter(group: Group) -> str:
    """Shell commands with which a shell moves itself into a cgroup."""
    return "\n".join(f"echo 0 > '{path}/cgroup.procs'" for path in group.directories)


def test_without_a_runtimes_name_the_readers_own_cgroup_is_its_machine(mount: Path) -> None:
    with unnamed("service", 100 * MIB) as outer, outer.child("inner") as inner:
        inner.set_memory(50 * MIB)
        with agent(inner) as reader:
            assert mem_total_mib(mount, reader) == 50


def test_in_a_pid_namespace_of_its_own_the_inits_cgroup_is_the_machine(mount: Path) -> None:
    """Its init is in the outer cgroup, the reader further in, where v1 lets it have a limit."""
    with (
        unnamed("service", 100 * MIB) as outer,
        outer.plain_child("inner") as inner,
        inner.plain_child("deep") as deep,
    ):
        if version_of("memory") == 1:
            deep.set_memory(50 * MIB)
        reader = f"{enter(deep)}\ncat '{mount}/proc/meminfo'"
        script = f'{enter(outer)}\nexec unshare -pf sh -ec "sh -ec \\"{reader}\\"; true"'
        assert meminfo_of(shell(script))["MemTotal"] == 100 * KIB_PER_MIB


def test_a_pid_namespaces_init_counts_and_not_a_limit_below_it(mount: Path) -> None:
    with unnamed("service", 100 * MIB) as top, top.child("init") as init:
        init.set_memory(90 * MIB)
        with top.child("elsewhere") as elsewhere:
            elsewhere.set_memory(70 * MIB)
            inside = f"cat '{mount}/proc/meminfo'"
            script = f'{enter(init)}\nexec unshare -pf sh -ec "{inside}; true"'
            assert meminfo_of(shell(script))["MemTotal"] == 90 * KIB_PER_MIB
            # A reader outside of its init's cgroup is in no machine but its own cgroup.
            moved = f"{enter(elsewhere)}\n{inside}"
            script = f'{enter(init)}\nexec unshare -pf sh -ec "sh -ec \\"{moved}\\"; true"'
            assert meminfo_of(shell(script))["MemTotal"] == 70 * KIB_PER_MIB


def test_a_process_that_moves_sees_where_it_is(mount: Path) -> None:
    """Also back again, and with the file kept open: read from its start it is made anew."""
    with (
        container(memory_bytes=100 * MIB) as one,
        container(memory_bytes=200 * MIB) as other,
        agent(one) as reader,
    ):
        descriptor = reader.call(os.open, str(mount / "proc/meminfo"), os.O_RDONLY)
        for group, expected in [(other, 200), (one, 100), (other, 200), (one, 100)] * 5:
            reader.move(group)
            assert mem_total_mib(mount, reader) == expected
            text = reader.call(os.pread, descriptor, 1 << 16, 0).decode()
            # The first read from the start has what there was at the open.
            fresh = reader.call(os.pread, descriptor, 1 << 16, 0).decode()
            assert text.endswith("\n")
            assert meminfo_of(fresh)["MemTotal"] == expected * KIB_PER_MIB
        reader.move(ROOT)
        host_kb = meminfo_of(Path("/proc/meminfo").read_text())["MemTotal"]
        assert meminfo(mount, reader)["MemTotal"] == host_kb


def readers_with_one_pid(path: str, groups: list[Group], times: int) -> list[tuple[int, int]]:
    """Start `times` processes, in turn in each group, with the same pid as far as it is free.

    Each reads the file; returned are the pid and MemTotal in MiB.
    """
    results: list[tuple[int, int]] = []
    wanted = 0
    for number in range(times):
        groups[number % len(groups)].add(0)
        reader, writer = os.pipe()
        if wanted and NS_LAST_PID.exists():
            write(NS_LAST_PID, str(wanted - 1))
        pid = os.fork()
        if pid == 0:
            os.write(writer, agents.read(path)[:64])
            os._exit(0)
        os.close(writer)
        head = os.read(reader, 64)
        os.close(reader)
        os.waitpid(pid, 0)
        wanted = wanted or pid
        results.append((pid, int(head.split()[1]) // KIB_PER_MIB))
    return results


def test_a_pid_that_is_used_again_never_shows_the_former_process_its_container(
    mount: Path,
) -> None:
    with (
        container(memory_bytes=100 * MIB) as one,
        container(memory_bytes=200 * MIB) as other,
        agent(one) as parent,
    ):
        meminfo_path = str(mount / "proc/meminfo")
        pairs = fewer(250, 25)
        results = parent.call(readers_with_one_pid, meminfo_path, [one, other], 2 * pairs)
    assert [seen for _, seen in results] == [100, 200] * pairs
    if NS_LAST_PID.exists():
        pids = [pid for pid, _ in results]
        assert len(pids) - len(set(pids)) > pairs // 3, "the pid was hardly ever used again"


def read_in_threads(path: str, count: int) -> list[bytes]:
    results: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: results.append(agents.read(path))) for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def read_after_the_leaders_exit(path: str, result: str) -> None:
    """The first thread ends; another one, whose process is a zombie to look at, reads on."""
    leader = os.getpid()

    def reader() -> None:
        while Path(f"/proc/{leader}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            os.sched_yield()
        Path(result).write_bytes(agents.read(path))
        os._exit(0)

    child = os.fork()
    if child == 0:
        leader = os.getpid()
        threading.Thread(target=reader).start()
        sys_exit = {"x86_64": 60, "aarch64": 93, "s390x": 1}[os.uname().machine]
        ctypes.CDLL(None).syscall(sys_exit, 0)
    os.waitpid(child, 0)


def test_every_thread_of_a_process_sees_its_container(mount: Path, tmp_path: Path) -> None:
    with container(memory_bytes=100 * MIB) as group, agent(group) as reader:
        texts = reader.call(read_in_threads, str(mount / "proc/meminfo"), 16)
        assert [meminfo_of(text.decode())["MemTotal"] for text in texts] == [100 << 10] * 16
        result = tmp_path / "result"
        reader.call(read_after_the_leaders_exit, str(mount / "proc/meminfo"), str(result))
        assert meminfo_of(result.read_text())["MemTotal"] == 100 << 10


def leave_zombies(count: int) -> list[int]:
    pids = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pids


def test_zombies_neither_run_nor_hinder(mount: Path) -> None:
    with container(memory_bytes=100 * MIB) as group, agent(group) as reader:
        reader.call(leave_zombies, 20)
        assert mem_total_mib(mount, reader) == 100
        text = proc(mount, "stat", reader)
        running = next(line for line in text.splitlines() if line.startswith("procs_running"))
        assert int(running.split()[1]) == 1
        assert stat(mount, reader)["cpu"]


def test_a_reader_in_no_container_gets_the_hosts_own(mount: Path, host: Agent) -> None:
    """What does not move is compared with the file itself, of what moves the structure is."""
    assert proc(mount, "meminfo", host).splitlines()[0] == first_line("meminfo")
    assert meminfo(mount, host).keys() == meminfo_of(Path("/proc/meminfo").read_text()).keys()
    assert proc(mount, "swaps", host).splitlines()[0] == first_line("swaps")
    assert without_mhz(proc(mount, "cpuinfo", host)) == without_mhz(
        Path("/proc/cpuinfo").read_text()
    )
    ours, theirs = proc(mount, "stat", host), Path("/proc/stat").read_text()
    assert names(ours) == names(theirs)
    assert line(ours, "btime") == line(theirs, "btime")
    assert (
        proc(mount, "slabinfo", host).splitlines()[:2]
        == Path("/proc/slabinfo").read_text().splitlines()[:2]
    )
    assert len(proc(mount, "diskstats", host).splitlines()) == len(
        Path("/proc/diskstats").read_text().splitlines()
    )


def first_line(name: str) -> str:
    return Path("/proc", name).read_text().splitlines()[0]


def without_mhz(text: str) -> list[str]:
    return [line for line in text.splitlines() if "MHz" not in line]


def names(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines()]


def line(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(name))


def test_each_of_many_containers_has_its_own_view(mount: Path) -> None:
    with ExitStack() as stack:
        readers = []
        for number in range(20):
            group = stack.enter_context(container(memory_bytes=(50 + number) * MIB))
            readers.append(stack.enter_context(agent(group)))
        for _ in range(3):
            seen = [mem_total_mib(mount, reader) for reader in readers]
            assert seen == list(range(50, 70))
