"""`python -m bench startup`: commands beside the bare interpreter, and the daemon until ready."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import daemons
from bench.cgroups import Limits, containers
from bench.figures import number, ratio_of_rounds, table
from bench.files import LIVE, VIEWS, Tree
from bench.readers import compile_reader, started

_BARE = "bare interpreter"
_DAEMON_RUNS = 5
HEAD = ("what", "median ms", "CPU ms", "time/bare", "CPU/bare")
Row = dict[str, float | str | None]


def measure(folder: Path, runs: int, counts: Sequence[int], src: Path) -> list[Row]:
    """Return a row for each command, and one for each number of containers."""
    environment = daemons.python_environment(folder, src)
    return [*_commands(runs, environment), *(_daemon(folder, count, src) for count in counts)]


def _commands(runs: int, environment: Mapping[str, str]) -> list[Row]:
    """Run each in turn with the bare interpreter."""
    procscope = daemons.procscope_command()
    commands = {
        _BARE: [sys.executable, "-c", ""],
        "procscope --help": [*procscope, "--help"],
        "procscope docker-args": [*procscope, "docker-args"],
    }
    took_ns: dict[str, list[float]] = {name: [] for name in commands}
    cpu_ns: dict[str, list[float]] = {name: [] for name in commands}
    for command in commands.values():
        # Compiles what is not compiled yet.
        _run(command, environment)
    for _ in range(runs):
        for name, command in commands.items():
            took, cpu = _run(command, environment)
            took_ns[name].append(took)
            cpu_ns[name].append(cpu)
    return [
        {
            "what": name,
            "median_ms": statistics.median(took_ns[name]) / 1e6,
            "cpu_ms": statistics.median(cpu_ns[name]) / 1e6,
            "to_bare": ratio_of_rounds(took_ns[name], took_ns[_BARE]),
            "cpu_to_bare": ratio_of_rounds(cpu_ns[name], cpu_ns[_BARE]),
        }
        for name in commands
    ]


def _run(command: list[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """Return wall clock and CPU time from exec(2) to the end, in nanoseconds."""
    begun_ns = time.monotonic_ns()
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, _, usage = os.wait4(process.pid, 0)
    took_ns = time.monotonic_ns() - begun_ns
    process.returncode = 0
    return took_ns, (usage.ru_utime + usage.ru_stime) * 1e9


def _daemon(folder: Path, count: int, src: Path) -> Row:
    """Start the daemon over and over, with records of so many containers that run."""
    program = compile_reader(folder)
    name = f"startup-{count}"
    with containers(count, Limits()) as cgroups:
        with daemons.procscope(folder, name=name, src=src) as daemon:
            tree = Tree(LIVE, daemon.mountpoint, daemon)
            binds = tree.binds(("meminfo",))
            if count:
                # Each is read once, so that there is a record of it.
                with started(program, folder / VIEWS, cgroups, binds, shared=True) as readers:
                    readers.read_round_robin(tree.path("meminfo"), count, 1, pause_usec=0)
        nothing: Mapping[str, Path] = {}
        with started(program, folder / VIEWS, cgroups, nothing, shared=True):
            ready_ns = []
            for _ in range(_DAEMON_RUNS):
                with daemons.procscope(folder, name=name, src=src) as daemon:
                    ready_ns.append(daemon.ready_after_ns)
    return {"what": f"serve, {count} containers", "median_ms": statistics.median(ready_ns) / 1e6}


def rendered(rows: Sequence[Mapping[str, float | str | None]], *, markdown: bool) -> str:
    """Return the table."""

    def cell(row: Mapping[str, float | str | None], name: str, digits: int) -> str:
        value = row.get(name)
        return number(value if isinstance(value, float) else None, digits)

    cells = [
        (
            str(row["what"]),
            cell(row, "median_ms", 1),
            cell(row, "cpu_ms", 1),
            cell(row, "to_bare", 2),
            cell(row, "cpu_to_bare", 2),
        )
        for row in rows
    ]
    return table(HEAD, cells, markdown=markdown)
