"""`python -m bench files`: each file, from the kernel, lxcfs, the live tree and the pinned tree.

The trees take turns, a block of reads each: A B C A B C, the next round C B A. All of them are
read by one process in one container.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench import daemons
from bench.cgroups import Limits, containers
from bench.daemons import Daemon
from bench.figures import NOTHING, number, percentile, ratio_of_rounds, table
from bench.readers import Readers, compile_reader, started

FILES = ("meminfo", "stat", "cpuinfo", "uptime", "loadavg", "diskstats", "swaps", "online")
FOLLOW_LIMITS = ("cpuinfo", "online")
"""What the pinned tree lets the kernel keep for 0.1 s."""
CPU_FOLDER = "sys/devices/system/cpu"
VIEWS = "views"
"""The folder in which containers mount what they read."""
KERNEL, LXCFS, LIVE, PINNED = "kernel", "lxcfs", "live", "pinned"
_MOUNTED = {"online": "cpu"}
"""What is mounted as part of a folder."""
_STARTING_S = 5.5
HEAD = (
    "file",
    "pace",
    "tree",
    "median µs",
    "p99 µs",
    "reads/s",
    "CPU µs",
    "switches",
    "median/lxcfs",
    "p99/lxcfs",
    "CPU/lxcfs",
    "median/kernel",
)


@dataclass(frozen=True, slots=True)
class Pace:
    """How a block is read."""

    name: str
    reads: int
    pause_usec: int
    files: tuple[str, ...] = FILES
    """What is read at this pace."""
    warm_up_reads: int = 5
    """Before the block, and as fast."""


@dataclass(frozen=True, slots=True)
class Tree:
    """Where files come from; `daemon` None is the kernel."""

    name: str
    root: Path
    daemon: Daemon | None

    def binds(self, files: Iterable[str] = FILES) -> Mapping[str, Path]:
        """Return what (value) a container mounts where: no path is walked through FUSE then."""
        return {
            f"{self.name}/{_MOUNTED.get(file, file)}": self.root
            / (CPU_FOLDER if file in _MOUNTED else f"proc/{file}")
            for file in files
        }

    def path(self, file: str) -> str:
        """Return where a container reads `file`."""
        return f"{self.name}/cpu/online" if file == "online" else f"{self.name}/{file}"


@dataclass(slots=True)
class Blocks:
    """All blocks of one file, pace and tree; a list has one figure for each round."""

    took_ns: list[int] = field(default_factory=list)
    median_ns: list[float] = field(default_factory=list)
    reads_per_s: list[float] = field(default_factory=list)
    cpu_ns_per_read: list[float] = field(default_factory=list)
    switches_per_read: list[float] = field(default_factory=list)

    def p99_ns(self) -> float:
        """Return the 99th percentile of all reads: one round has too few."""
        return percentile(self.took_ns, 99)


Results = dict[tuple[str, str, str], Blocks]


def trees_of(
    stack: ExitStack, folder: Path, others: Mapping[str, Path], options: Sequence[str] = ()
) -> list[Tree]:
    """Start the daemons, and return every tree; `others` are sources to be measured as well."""
    trees = [Tree(KERNEL, Path("/"), None)]
    of_lxcfs = stack.enter_context(daemons.lxcfs(folder))
    trees.append(Tree(LXCFS, of_lxcfs.mountpoint, of_lxcfs))
    for name, src in {LIVE: daemons.ROOT / "src", **others}.items():
        served = daemons.procscope(folder, name=f"procscope-{name}", src=src, options=options)
        daemon = stack.enter_context(served)
        trees.append(Tree(name, daemon.mountpoint, daemon))
        if (daemon.mountpoint / "self").is_dir():
            pinned = PINNED if name == LIVE else f"{PINNED}-{name}"
            trees.append(Tree(pinned, daemon.mountpoint / "self", daemon))
    return trees


def make_ready(readers: Readers, trees: Sequence[Tree], limits: Limits) -> None:
    """Check that each daemon shows the limits; wait until no container is being started any more.

    Of one that is, the kernel may keep nothing from the pinned tree.
    """
    for tree in trees:
        line = readers.first_line(tree.path("meminfo"))
        if tree.daemon is not None and int(line.split()[1]) << 10 != limits.memory_bytes:
            raise SystemExit(f"bench: {tree.name} does not show the container's limit: {line}")
    time.sleep(_STARTING_S)


def measure(
    folder: Path,
    paces: Sequence[Pace],
    rounds: int,
    files: Sequence[str],
    others: Mapping[str, Path],
) -> tuple[Results, dict[str, int]]:
    """Return all blocks, and what memory each tree's daemon has in the end."""
    results: Results = {}
    limits = Limits()
    program = compile_reader(folder)
    with ExitStack() as stack:
        trees = trees_of(stack, folder, others)
        cgroups = stack.enter_context(containers(1, limits))
        binds = {
            target: source
            for tree in trees
            for target, source in tree.binds({*files, "meminfo"}).items()
        }
        readers = stack.enter_context(started(program, folder / VIEWS, cgroups, binds))
        make_ready(readers, trees, limits)
        for round_ in range(rounds):
            for pace in paces:
                for file in [file for file in files if file in pace.files]:
                    for tree in trees if round_ % 2 == 0 else reversed(trees):
                        blocks = results.setdefault((file, pace.name, tree.name), Blocks())
                        _measure_block(readers, tree, file, pace, blocks)
        memory = {
            tree.name: tree.daemon.account.pss_bytes() for tree in trees if tree.daemon is not None
        }
    return results, memory


def _measure_block(readers: Readers, tree: Tree, file: str, pace: Pace, blocks: Blocks) -> None:
    path = tree.path(file)
    readers.read(path, pace.warm_up_reads)
    account = tree.daemon.account if tree.daemon else None
    cpu_ns, switches = (account.cpu_ns(), account.switches()) if account else (0, 0)
    sample = readers.read(path, pace.reads, pause_usec=pace.pause_usec)
    if account:
        cpu_ns, switches = account.cpu_ns() - cpu_ns, account.switches() - switches
    blocks.took_ns += sample.took_ns
    blocks.median_ns.append(statistics.median(sample.took_ns))
    blocks.reads_per_s.append(pace.reads * 1e9 / sample.elapsed_ns)
    blocks.cpu_ns_per_read.append(cpu_ns / pace.reads)
    # A pause is a context switch of the reader that the read is not to blame for.
    of_reader = sample.switches - (pace.reads if pace.pause_usec else 0)
    blocks.switches_per_read.append((switches + max(0, of_reader)) / pace.reads)


def figures(results: Results) -> list[dict[str, float | str | None]]:
    """Return one row for each file, pace and tree."""
    rows: list[dict[str, float | str | None]] = []
    for (file, pace, tree), blocks in results.items():
        theirs = results.get((file, pace, LXCFS))
        kernels = results.get((file, pace, KERNEL))
        row: dict[str, float | str | None] = {
            "file": file,
            "pace": pace,
            "tree": tree,
            "median_us": percentile(blocks.took_ns, 50) / 1e3,
            "p99_us": blocks.p99_ns() / 1e3,
            "reads_per_s": statistics.median(blocks.reads_per_s),
            "cpu_us_per_read": statistics.median(blocks.cpu_ns_per_read) / 1e3,
            "switches_per_read": statistics.median(blocks.switches_per_read),
        }
        if theirs is not None and tree not in (KERNEL, LXCFS):
            row["median_to_lxcfs"] = ratio_of_rounds(blocks.median_ns, theirs.median_ns)
            row["p99_to_lxcfs"] = blocks.p99_ns() / theirs.p99_ns()
            row["cpu_to_lxcfs"] = ratio_of_rounds(blocks.cpu_ns_per_read, theirs.cpu_ns_per_read)
        if kernels is not None and tree != KERNEL:
            row["median_to_kernel"] = ratio_of_rounds(blocks.median_ns, kernels.median_ns)
        rows.append(row)
    return rows


def rendered(rows: Sequence[Mapping[str, float | str | None]], *, markdown: bool) -> str:
    """Return the table."""

    def cell(row: Mapping[str, float | str | None], name: str, digits: int) -> str:
        value = row.get(name)
        return number(value if isinstance(value, float) else None, digits)

    def daemon_only(row: Mapping[str, float | str | None], name: str) -> str:
        return NOTHING if row["tree"] == KERNEL else cell(row, name, 1)

    cells = [
        (
            str(row["file"]),
            str(row["pace"]),
            str(row["tree"]),
            cell(row, "median_us", 1),
            cell(row, "p99_us", 1),
            cell(row, "reads_per_s", 0) if row["pace"] == "hot" else NOTHING,
            daemon_only(row, "cpu_us_per_read"),
            daemon_only(row, "switches_per_read"),
            cell(row, "median_to_lxcfs", 2),
            cell(row, "p99_to_lxcfs", 2),
            cell(row, "cpu_to_lxcfs", 2),
            cell(row, "median_to_kernel", 1),
        )
        for row in rows
    ]
    return table(HEAD, cells, markdown=markdown)
