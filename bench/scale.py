"""`python -m bench scale`: what a read and an idle daemon cost beside very many containers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import daemons
from bench.cgroups import Limits, containers
from bench.daemons import Daemon
from bench.figures import number, percentile, ratio_of_rounds, table
from bench.files import LIVE, VIEWS, Tree
from bench.readers import Readers, compile_reader, started

FILES = ("meminfo", "stat")
_SAMPLER = "procscope-load"
_READS = 300
_MOST_READS_AT_ONCE = 1000
"""Round robin over more containers than this reads each once."""
_ROUNDS = 3
_SHARED_ABOVE = 100
"""That many containers have a mount namespace each; more would copy the host's mounts for long."""
HEAD = (
    "containers",
    "threads",
    "file",
    "median µs",
    "p99 µs",
    "CPU µs",
    "median/one",
    "CPU/one",
    "PSS MB",
    "PSS kB/container",
    "sampler CPU %",
    "idle CPU %",
)
_SETTLING_S = 11.0
"""After two passes of the sampler: in the first after a read it counts all threads of who has read,
which is no cost of an idle daemon."""
Row = dict[str, float | str | None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured."""

    counts: Sequence[int]
    threads: int
    idle_s: float
    pause_usec: int
    src: Path


@dataclass(frozen=True, slots=True)
class _Cost:
    """Of reads in a row."""

    took_ns: tuple[int, ...]
    cpu_ns_per_read: float

    @property
    def median_ns(self) -> float:
        return statistics.median(self.took_ns)


def measure(folder: Path, plan: Plan) -> list[Row]:
    """Return a row for each number of containers and file."""
    program = compile_reader(folder)
    rows: list[Row] = []
    empty_pss_bytes = 0
    for count in plan.counts:
        threads = _affordable(count, plan.threads)
        with _serving(folder, program, count, threads, plan) as (daemon, tree, readers):
            empty_pss_bytes = empty_pss_bytes or daemon.account.pss_bytes()
            for file in FILES:
                readers.read_round_robin(tree.path(file), count, 2, pause_usec=0)
            of_files = {file: _costs(daemon, tree, readers, file, plan) for file in FILES}
            shared = _memory_and_idle(daemon, count, empty_pss_bytes, plan.idle_s)
        for file, costs in of_files.items():
            row: Row = {"containers": float(count), "threads": float(threads), "file": file}
            rows.append({**row, **costs, **shared})
            shared = {}
    return rows


def _affordable(count: int, threads: int) -> int:
    """Return how many threads each container can have: the pids of a host are limited."""
    most = int(Path("/proc/sys/kernel/pid_max").read_text()) // 2
    return threads if count * threads <= most else max(1, most // count)


@contextmanager
def _serving(
    folder: Path, program: Path, count: int, threads: int, plan: Plan
) -> Iterator[tuple[Daemon, Tree, Readers]]:
    """A fresh daemon, and so many containers."""
    name = f"scale-{count}"
    with (
        daemons.procscope(folder, name=name, src=plan.src) as daemon,
        containers(count, Limits()) as cgroups,
    ):
        tree = Tree(LIVE, daemon.mountpoint, daemon)
        shared = count > _SHARED_ABOVE
        with started(
            program, folder / VIEWS, cgroups, tree.binds(FILES), threads=threads, shared=shared
        ) as readers:
            yield daemon, tree, readers


def _costs(daemon: Daemon, tree: Tree, readers: Readers, file: str, plan: Plan) -> Row:
    """Compare reads by all in turn with as many reads by one, in turn with each other."""
    path = tree.path(file)
    all_: list[_Cost] = []
    one: list[_Cost] = []
    rounds = 1 if readers.count > _MOST_READS_AT_ONCE else _ROUNDS
    for _ in range(rounds):
        # Both in the same way, a read at a time: a reader that is woken for each is a colder one.
        for costs, count in ((all_, readers.count), (one, 1)):
            turns = max(1, _READS // rounds // count)
            costs.append(_cost(daemon, readers, path, count, turns, plan.pause_usec))
    took_ns = [ns for cost in all_ for ns in cost.took_ns]
    cpus = [cost.cpu_ns_per_read for cost in all_]
    return {
        "median_us": percentile(took_ns, 50) / 1e3,
        "p99_us": percentile(took_ns, 99) / 1e3,
        "cpu_us_per_read": statistics.median(cpus) / 1e3,
        "median_to_one": ratio_of_rounds(
            [cost.median_ns for cost in all_], [cost.median_ns for cost in one]
        ),
        "cpu_to_one": ratio_of_rounds(cpus, [cost.cpu_ns_per_read for cost in one]),
    }


def _cost(
    daemon: Daemon, readers: Readers, path: str, count: int, turns: int, pause_usec: int
) -> _Cost:
    before_ns = daemon.account.cpu_ns()
    sample = readers.read_round_robin(path, count, turns, pause_usec=pause_usec)
    used_ns = daemon.account.cpu_ns() - before_ns
    return _Cost(sample.took_ns, used_ns / len(sample.took_ns))


def _memory_and_idle(daemon: Daemon, count: int, empty_pss_bytes: int, idle_s: float) -> Row:
    account = daemon.account
    pss_bytes = account.pss_bytes()
    time.sleep(_SETTLING_S)
    cpu_ns, sampler_ns = account.cpu_ns(), account.cpu_ns_of(_SAMPLER)
    begun_s = time.monotonic()
    time.sleep(idle_s)
    passed_ns = (time.monotonic() - begun_s) * 1e9
    # The first containers cost what a daemon needs for any: nothing is to be learned from them.
    is_many = count >= _SHARED_ABOVE
    return {
        "pss_bytes": float(pss_bytes),
        "pss_bytes_per_container": (pss_bytes - empty_pss_bytes) / count if is_many else None,
        "sampler_cpu_percent": 100 * (account.cpu_ns_of(_SAMPLER) - sampler_ns) / passed_ns,
        "idle_cpu_percent": 100 * (account.cpu_ns() - cpu_ns) / passed_ns,
    }


def rendered(rows: Sequence[Mapping[str, float | str | None]], *, markdown: bool) -> str:
    """Return the table."""

    def cell(row: Mapping[str, float | str | None], name: str, digits: int, per: float = 1) -> str:
        value = row.get(name)
        return number(value / per, digits) if isinstance(value, float) else ""

    cells = [
        (
            cell(row, "containers", 0),
            cell(row, "threads", 0),
            str(row["file"]),
            cell(row, "median_us", 1),
            cell(row, "p99_us", 1),
            cell(row, "cpu_us_per_read", 1),
            cell(row, "median_to_one", 2),
            cell(row, "cpu_to_one", 2),
            cell(row, "pss_bytes", 1, 1e6),
            cell(row, "pss_bytes_per_container", 1, 1e3),
            cell(row, "sampler_cpu_percent", 2),
            cell(row, "idle_cpu_percent", 2),
        )
        for row in rows
    ]
    return table(HEAD, cells, markdown=markdown)
