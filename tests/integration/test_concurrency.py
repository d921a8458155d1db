"""Many readers at once: each sees its own container, in its turn, and no counter goes back."""

from __future__ import annotations

import mmap
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.integration import agents
from tests.integration.agents import Agent, agent
from tests.integration.cgroups import container
from tests.integration.daemons import Daemon, daemon
from tests.integration.files import CPU_FOLDER, ONLINE
from tests.integration.tasks import stopped, threads_of, wait_in_open
from tests.integration.waiting import eventually, fewer

MIB = 1 << 20
READS = fewer(1000, 100)
MANY = 64
FEW = 10
"""Far fewer than `MANY`. A worker takes 16 requests at a time, and answers one of them between."""
COUNTERS = 256
WORD_BYTES = 8
BUSY_NS = 20_000_000
"""CPU time of a worker that has answered hundreds of requests."""


def read_both(mount: str, times: int) -> list[tuple[bytes, bytes]]:
    """What differed, as (first line of meminfo, online), each kind once."""
    seen = set()
    for _ in range(times):
        total = agents.read(f"{mount}/proc/meminfo").split(b"\n", 1)[0]
        seen.add((total, agents.read(f"{mount}{CPU_FOLDER}/online")))
    return sorted(seen)


def test_eight_readers_in_four_containers_each_see_their_own(mount: Path) -> None:
    """Many reads of two files each, all at once."""
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
    (worker,) = eventually(served.workers)
    # A name that nobody has looked up is looked up by one thread, and the others wait for that.
    agents.read(path)
    with stopped(worker):
        logged = len(served.log())
        many.send(read_in_threads, path, MANY, 5)
        wait_in_open(many.pid, path, MANY)
        theirs = threads_of(many.pid)
        one.send(agents.read, path)
        wait_in_open(one.pid, path, 1)
    assert isinstance(content := one.receive(), bytes)
    assert content.endswith(b" kB\n")
    assert many.receive() == MANY * 5
    order = [pid for pid in answered(served.log()[logged:]) if pid in (*theirs, one.pid)]
    assert len(order) > MANY
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


def run_ns(pid: int) -> int:
    """The CPU time of a process, in nanoseconds."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def test_one_worker_serves_while_it_keeps_up() -> None:
    """The other one is woken in vain now and then, and does not take turns with it."""
    with (
        daemon("--workers", "2", "--deadline", "60") as served,
        container() as group,
        agent(group) as inside,
    ):
        workers = eventually(lambda: both(served))
        path = str(served.mountpoint / "proc/meminfo")
        inside.call(read_often, path, READS)
        before = [run_ns(pid) for pid in workers]
        inside.call(read_often, path, READS)
        first, second = (run_ns(pid) - began for pid, began in zip(workers, before, strict=True))
        assert second < first / 2


def both(served: Daemon) -> list[int]:
    """The two workers, once each has its name."""
    workers = served.workers()
    return workers if len(workers) == 2 else []


def read_often(path: str, times: int) -> None:
    for _ in range(times):
        agents.read(path)


def runs_as_usual(*pids: int) -> bool:
    """Whether these processes run on every CPU that this one may use, and beside all others."""
    usual = (os.SCHED_OTHER, os.sched_getaffinity(0))
    return all((os.sched_getscheduler(pid), os.sched_getaffinity(pid)) == usual for pid in pids)


@contextmanager
def read_on_and_on(served: Daemon, folder: Path) -> Iterator[None]:
    """Let a container's process read without a pause meanwhile."""
    path, going_on = served.mountpoint / "proc/meminfo", folder / "going-on"
    going_on.touch()
    worker = eventually(lambda: both(served))[0]
    with container() as group, agent(group) as inside:
        before_ns = run_ns(worker)
        inside.send(read_while, str(path), str(going_on))
        eventually(lambda: run_ns(worker) > before_ns + BUSY_NS)
        yield
        going_on.unlink()
        inside.receive()


def read_while(path: str, going_on: str) -> None:
    while os.path.exists(going_on):
        agents.read(path)


def test_who_has_followed_a_reader_runs_as_before_when_that_has_read_enough(tmp_path: Path) -> None:
    """So does the supervisor, at the latest when it has anything to do.

    Whether a reader is followed is a matter of how fast the CPUs wake up.
    """
    with daemon("--workers", "2", "--deadline", "60") as served:
        for _ in range(3):
            with read_on_and_on(served, tmp_path):
                pass
            eventually(lambda: runs_as_usual(*served.workers()))
            served.status()
            eventually(lambda: runs_as_usual(served.pid))


def test_a_worker_whose_supervisor_is_killed_runs_as_before_when_nobody_reads(
    tmp_path: Path,
) -> None:
    with daemon("--workers", "2", keeper=True) as served:
        workers = eventually(lambda: both(served))
        with read_on_and_on(served, tmp_path):
            served.stop(signal.SIGKILL)
        eventually(lambda: runs_as_usual(*workers))


def test_who_is_started_by_a_reload_while_somebody_reads_runs_as_usual(tmp_path: Path) -> None:
    with daemon("--workers", "2", keeper=True) as served:
        before = eventually(lambda: both(served))
        with read_on_and_on(served, tmp_path):
            assert served.command("reload").returncode == 0
            after = eventually(lambda: both(served))
        assert not {*before} & {*after}
        eventually(lambda: runs_as_usual(served.pid, *served.children("")))


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

    def note(self, row: int, counters: dict[int, int]) -> None:
        """A read of the process with this row has ended."""
        for number, value in counters.items():
            self._words[row * COUNTERS + number] = value


def counters_of(name: str, content: str) -> dict[int, int]:
    """What never decreases in a file, by a number of its own."""
    if name == "uptime":
        return {index: int(word.replace(".", "")) for index, word in enumerate(content.split())}
    lines = {line.split()[0]: line.split()[1:] for line in content.splitlines()}
    # Of the interrupts the sum of all: there may be thousands of kinds.
    words = [lines["intr"][0], *lines["ctxt"], *lines["processes"], *lines["softirq"]]
    for key, columns in lines.items():
        words += columns if key.startswith("cpu") else []
    return {2 + index: int(word) for index, word in enumerate(words[: COUNTERS - 2])}


def watch_counters(mount: str, board_fd: int, rows: int, row: int, times: int) -> list[str]:
    """What was less in a read than in one that had ended before it began, by anybody."""
    board = Board(board_fd, rows)
    stepped_back = []
    for _ in range(times):
        for name in ("uptime", "stat"):
            before = board.highest()
            content = agents.read(f"{mount}/proc/{name}").decode()
            counters = counters_of(name, content)
            stepped_back += [
                f"{name}, counter {number}: {value} after {before[number]}"
                for number, value in counters.items()
                if value < before[number]
            ]
            board.note(row, counters)
    return stepped_back


def test_no_counter_goes_back_over_what_any_process_of_a_container_has_seen(
    tmp_path: Path,
) -> None:
    """Four workers answer, partly from what another has rendered or read a moment ago.

    Only reads that began after another had ended are compared with it.
    """
    readers = 6
    with ExitStack() as stack:
        mount = stack.enter_context(daemon("--workers", "4")).mountpoint
        group = stack.enter_context(container(cpus=1.5))
        board_fd = os.open(tmp_path / "board", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        stack.callback(os.close, board_fd)
        os.truncate(board_fd, readers * COUNTERS * WORD_BYTES)
        started = [stack.enter_context(agent(group)) for _ in range(readers)]
        for row, reader in enumerate(started):
            reader.send(watch_counters, str(mount), board_fd, readers, row, READS)
        assert [reader.receive() for reader in started] == [[]] * readers
        seen = Board(board_fd, readers).highest()
    # Time has passed: the uptime, and the sum of all interrupts.
    assert seen[0] > 0
    assert seen[2] > 0
