"""`python -m bench throughput`: containers that read the same file at once, as fast as they can."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.cgroups import Limits, containers
from bench.figures import NOTHING, number, ratio_of_rounds, table
from bench.files import KERNEL, LXCFS, VIEWS, Tree, make_ready, trees_of
from bench.readers import Readers, compile_reader, started

_MSEC = 500
HEAD = ("file", "tree", "reads/s", "CPU µs", "reads/s / lxcfs", "CPU/lxcfs")
Row = dict[str, float | str | None]


def measure(
    folder: Path, count: int, rounds: int, files: Sequence[str], others: Mapping[str, Path]
) -> list[Row]:
    """Return a row for each file and tree."""
    limits = Limits()
    program = compile_reader(folder)
    with ExitStack() as stack:
        trees = trees_of(stack, folder, others)
        cgroups = stack.enter_context(containers(count, limits))
        binds = {
            target: source
            for tree in trees
            for target, source in tree.binds(("meminfo", *files)).items()
        }
        readers = stack.enter_context(started(program, folder / VIEWS, cgroups, binds))
        make_ready(readers, trees, limits)
        return [row for file in files for row in _measure_file(readers, trees, file, rounds)]


def _measure_file(readers: Readers, trees: Sequence[Tree], file: str, rounds: int) -> list[Row]:
    rates: dict[str, list[float]] = {tree.name: [] for tree in trees}
    costs: dict[str, list[float]] = {tree.name: [] for tree in trees}
    for round_ in range(rounds):
        for tree in trees if round_ % 2 == 0 else reversed(trees):
            account = tree.daemon.account if tree.daemon else None
            before_ns = account.cpu_ns() if account else 0
            rush = readers.rush(tree.path(file), readers.count, _MSEC)
            used_ns = account.cpu_ns() - before_ns if account else 0
            rates[tree.name].append(rush.reads * 1e9 / rush.elapsed_ns)
            costs[tree.name].append(used_ns / rush.reads)
    rows: list[Row] = []
    for name, of_tree in rates.items():
        row: Row = {
            "file": file,
            "tree": name,
            "reads_per_s": statistics.median(of_tree),
            "cpu_us_per_read": statistics.median(costs[name]) / 1e3,
        }
        if name not in (KERNEL, LXCFS):
            row["reads_per_s_to_lxcfs"] = ratio_of_rounds(of_tree, rates[LXCFS])
            row["cpu_to_lxcfs"] = ratio_of_rounds(costs[name], costs[LXCFS])
        rows.append(row)
    return rows


def rendered(rows: Sequence[Mapping[str, float | str | None]], *, markdown: bool) -> str:
    """Return the table."""

    def cell(row: Mapping[str, float | str | None], name: str, digits: int) -> str:
        value = row.get(name)
        return number(value if isinstance(value, float) else None, digits)

    cells = [
        (
            str(row["file"]),
            str(row["tree"]),
            cell(row, "reads_per_s", 0),
            NOTHING if row["tree"] == KERNEL else cell(row, "cpu_us_per_read", 1),
            cell(row, "reads_per_s_to_lxcfs", 2),
            cell(row, "cpu_to_lxcfs", 2),
        )
        for row in rows
    ]
    return table(HEAD, cells, markdown=markdown)
