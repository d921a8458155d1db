"""`python -m bench`: measure, and print a table.

    sudo .venv/bin/python -m bench                 each file: kernel, lxcfs, live and pinned tree
    sudo .venv/bin/python -m bench scale           1 to 4,000 containers
    sudo .venv/bin/python -m bench throughput      8 containers that read at once
    sudo .venv/bin/python -m bench startup         commands, and the daemon until it is ready

docs/performance.md says what each figure means. Needs root, cgroups and gcc; lxcfs is installed
from the distribution if it is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench import daemons, files, machine, scale, startup, throughput

_SETTLING_READS = 2500
"""Longer than the scheduler waits before it puts reader and daemon on other CPUs."""
_Report = tuple[Any, str]
"""What goes into the JSON, and what is printed."""


def _files(options: argparse.Namespace, folder: Path) -> _Report:
    paces = [
        files.Pace("hot", options.reads, 0),
        files.Pace("sustained", options.sustained_reads, 0, warm_up_reads=_SETTLING_READS),
        files.Pace("cold", options.cold_reads, options.pause_usec),
        files.Pace(
            "expired", options.expired_reads, options.expired_pause_usec, files.FOLLOW_LIMITS
        ),
    ]
    results, memory = files.measure(folder, paces, options.rounds, options.files, _others(options))
    rows = files.figures(results)
    text = files.rendered(rows, markdown=options.markdown)
    sizes = ", ".join(f"{tree} {size / 1e6:.1f} MB" for tree, size in memory.items())
    return {"rows": rows, "pss_bytes": memory}, f"{text}\n\nPSS of all processes: {sizes}"


def _scale(options: argparse.Namespace, folder: Path) -> _Report:
    plan = scale.Plan(
        counts=options.counts,
        threads=options.threads,
        idle_s=options.idle,
        pause_usec=options.pause_usec,
        src=options.src,
    )
    rows = scale.measure(folder, plan)
    return rows, scale.rendered(rows, markdown=options.markdown)


def _throughput(options: argparse.Namespace, folder: Path) -> _Report:
    rows = throughput.measure(
        folder, options.containers, options.rounds, options.files, _others(options)
    )
    return rows, throughput.rendered(rows, markdown=options.markdown)


def _startup(options: argparse.Namespace, folder: Path) -> _Report:
    rows = startup.measure(folder, options.runs, options.counts, options.src)
    return rows, startup.rendered(rows, markdown=options.markdown)


_COMMANDS: Mapping[str, Callable[[argparse.Namespace, Path], _Report]] = {
    "files": _files,
    "scale": _scale,
    "throughput": _throughput,
    "startup": _startup,
}


def _others(options: argparse.Namespace) -> dict[str, Path]:
    return {src.resolve().parent.name: src.resolve() for src in options.also}


def _list(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _counts(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="What reads cost, beside lxcfs and the kernel."
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", type=Path, metavar="FILE", help="write every figure there too")
    common.add_argument("--markdown", action="store_true", help="print a table of Markdown")
    commands = parser.add_subparsers(dest="command")
    one = commands.add_parser("files", parents=[common], help="each file (the default)")
    one.add_argument("--rounds", type=int, default=7)
    one.add_argument("--reads", type=int, default=400, help="in a hot block")
    one.add_argument(
        "--sustained-reads", type=int, default=3000, help="in a block of many hot reads"
    )
    one.add_argument("--cold-reads", type=int, default=60, help="in a cold block")
    one.add_argument("--pause-usec", type=int, default=15_000, help="before each cold read")
    one.add_argument("--expired-reads", type=int, default=10, help="in an expired block")
    one.add_argument(
        "--expired-pause-usec", type=int, default=120_000, help="before each expired read"
    )
    one.add_argument("--files", type=_list, default=files.FILES)
    _add_also(one)
    one = commands.add_parser("scale", parents=[common], help="1 to 4,000 containers")
    one.add_argument("--counts", type=_counts, default=(1, 10, 100, 1000, 4000))
    one.add_argument("--threads", type=int, default=10, help="in each container")
    one.add_argument("--idle", type=float, default=20.0, help="seconds without a read")
    one.add_argument("--pause-usec", type=int, default=12_000, help="before each read")
    _add_src(one)
    one = commands.add_parser("throughput", parents=[common], help="containers that read at once")
    one.add_argument("--containers", type=int, default=8)
    one.add_argument("--rounds", type=int, default=5)
    one.add_argument("--files", type=_list, default=("meminfo", "stat", "cpuinfo", "online"))
    _add_also(one)
    one = commands.add_parser("startup", parents=[common], help="commands and the daemon")
    one.add_argument("--runs", type=int, default=15)
    one.add_argument("--counts", type=_counts, default=(0, 1000), help="containers that there are")
    _add_src(one)
    return parser


def _add_also(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--also",
        type=Path,
        action="append",
        default=[],
        metavar="SRC",
        help="measure a daemon from this source tree as well, in turn with the others",
    )


def _add_src(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--src", type=Path, default=daemons.ROOT / "src", help="where the daemon comes from"
    )


def main() -> None:
    """Measure and print."""
    parser = _parser()
    words = sys.argv[1:]
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help")):
        words.insert(0, "files")
    options = parser.parse_args(words)
    if os.geteuid() != 0:
        raise SystemExit("bench: needs root for cgroups and mounts")
    # Ended from outside, it leaves no mount and no cgroup behind either.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    facts = machine.describe()
    with tempfile.TemporaryDirectory(prefix="procscope-bench-") as name:
        result, text = _COMMANDS[options.command](options, Path(name))
    facts["load average after"] = " ".join(f"{load:.1f}" for load in os.getloadavg())
    print("\n".join(f"{fact}: {value}" for fact, value in facts.items()))
    print(f"\n{text}")
    if options.json:
        report = {"machine": facts, options.command: result}
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
