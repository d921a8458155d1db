"""Many readers at once: each sees its own container, in its turn, and no counter goes back."""

from __future__ import annotations

import mmap
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from tests.integration import agents
from tests.integration.agents import Agent, agent
from tests.integration.cgroups import Group, container
from tests.integration.daemons import Daemon, daemon
from tests.integration.files import CPU_FOLDER, ONLINE
from tests.integration.waiting import eventually

MIB = 1 << 20
READS = 1000
MANY = 64
FEW = 10
"""Far fewer than `MANY`. A worker takes 16 requests at a time, and answers one of them between."""
COUNTERS = 1024
WORD_BYTES = 8


def read_both(mount: str, times: int) -> list[tuple[bytes, bytes]]:
    """What differed, as (first line of meminfo, online), each kind once."""
    seen = set()
    for _ in range(times):
        total = agents.read(f"{mount}/proc/meminfo").split(b"\n", 1)[0]
        seen.add((total, agents.read(f"{mount}{CPU_FOLDER}/online")))
    return sorted(seen)


def test_eight_readers_in_four_containers_each_see_their_own(mount: Path) -> None:
    """A thousand reads of two files each, all at once."""
    with ExitStack() as stack:
        readers: list[tuple[Agent, bytes, bytes]] = []
        for number in range(4):
            cpu = ONLINE[number % len(ONLINE)]
            limit_mib = 100 + number
            group = stack.enter_context(container(memory_bytes=limit_mib * MIB, cpuset=str(cpu)))
            total = b"MemTotal:       %8d kB" % (limit_mib << 10)
            for _ in range(2):
                reader = stack.enter_context(agent(group))
                readers.append((reader, total, b"%d\n" % cpu))
        for reader, _, _ in readers:
            reader.send(read_both, str(mount), READS)
        for reader, total, online in readers:
            assert reader.receive() == [(total, online)]


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that does nothing meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        eventually(lambda: state_of(pid) == "T")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def state_of(task: int) -> str:
    """The state of a process or thread, as in `/proc/PID/stat`."""
    return Path(f"/proc/{task}/stat").read_text().rpartition(")")[2].split()[0]


def threads_of(pid: int) -> list[int]:
    """Every thread of a process."""
    return [int(name) for name in os.listdir(f"/proc/{pid}/task")]


def is_waiting_for(task: int, path: str) -> bool:
    """Whether a thread sleeps in a system call that was given the path at this address."""
    words = Path(f"/proc/{task}/syscall").read_text().split()
    if state_of(task) != "S" or words[0] == "running":
        return False
    with open(f"/proc/{task}/mem", "rb", buffering=0) as memory:
        for address in (int(word, 16) for word in words[1:4]):
            try:
                found = os.pread(memory.fileno(), len(path) + 1, address)
            except (OSError, OverflowError):
                continue
            if found == os.fsencode(path) + b"\0":
                return True
    return False


def wait_in_open(pid: int, path: str, count: int) -> None:
    """Wait until so many threads of a process wait for the answer to their open(2) of `path`."""
    eventually(lambda: sum(is_waiting_for(task, path) for task in threads_of(pid)) == count)


def read_in_threads(path: str, threads: int, times: int) -> int:
    """Read in so many threads, so many times in each; return how many reads were whole."""
    whole: list[bool] = []

    def work() -> None:
        for _ in range(times):
            whole.append(agents.read(path).endswith(b" kB\n"))

    started = [threading.Thread(target=work) for _ in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    return sum(whole)


def answered(log: str) -> list[int]:
    """The pids of those whose requests were answered, in this order."""
    return [int(pid) for pid in re.findall(r"-> [A-Z]+ unique=\d+ node=\d+ pid=(\d+)", log)]


def answered_before(served: Daemon, many: Agent, one: Agent) -> int:
    """How many requests of `many` are answered before the one that `one` makes after them all."""
    path = str(served.mountpoint / "proc/meminfo")
    (worker,) = served.workers()
    with stopped(worker):
        logged = len(served.log())
        many.send(read_in_threads, path, MANY, 5)
        wait_in_open(many.pid, path, MANY)
        one.send(agents.read, path)
        wait_in_open(one.pid, path, 1)
    assert isinstance(content := one.receive(), bytes)
    assert content.endswith(b" kB\n")
    assert many.receive() == MANY * 5
    order = answered(served.log()[logged:])
    # Nothing of the daemon's own comes between: the sampler has all the files open.
    return order.index(one.pid)


def test_who_comes_last_is_answered_before_most_of_the_many_of_another_container() -> None:
    """They all wait when the only worker begins, and each of the many has more to ask then."""
    with (
        daemon("--workers", "1", "--deadline", "60", "--debug") as served,
        container() as crowded,
        container() as other,
        agent(crowded) as many,
        agent(other) as one,
    ):
        for _ in range(3):
            assert answered_before(served, many, one) <= FEW


def test_who_comes_last_of_its_own_container_waits_for_the_others_of_it() -> None:
    """What the test above measures is there: within a container the order is that of arrival."""
    with (
        daemon("--workers", "1", "--deadline", "60", "--debug") as served,
        container() as group,
        agent(group) as many,
        agent(group) as one,
    ):
        assert answered_before(served, many, one) == MANY


class Board:
    """Counters that several processes have read, in memory that they share.

    Each process has a row, which it alone writes, so that none takes back what another has seen.
    """

    def __init__(self, fd: int, rows: int) -> None:
        self._words = memoryview(mmap.mmap(fd, rows * COUNTERS * WORD_BYTES)).cast("Q")
        self._rows = rows

    def highest(self) -> list[int]:
        """The highest value of each counter in reads that have ended."""
        rows = [self._words[row * COUNTERS : (row + 1) * COUNTERS] for row in range(self._rows)]
        return [max(values) for values in zip(*rows, strict=True)]

    def note(self, row: int, values: list[int]) -> None:
        """A read of the process with row `row` has ended."""
        for number, value in enumerate(values):
            self._words[row * COUNTERS + number] = value


def counters(mount: str) -> Iterator[tuple[str, list[int]]]:
    """Read the files one by one; yields a file's name and the counters in it."""
