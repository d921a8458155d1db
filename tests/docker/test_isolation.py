"""Two containers that read at the same time: each sees its own numbers, always."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from tests.docker.conftest import Run
from tests.docker.containers import Container

READERS = 4
"""In each of two containers."""
READS = 1000

READER = r"""
BEGIN {
    for (i = 0; i < %d; i++) {
        getline line < "/proc/meminfo"; close("/proc/meminfo"); seen["meminfo " line]++
        n = 0
        while ((getline line < "/proc/stat") > 0) if (line ~ /^cpu[0-9]/) {
            split(line, column, " "); seen["stat " column[1]]++; n++
        }
        close("/proc/stat")
        seen["stat lines " n]++
        while ((getline line < "/proc/cpuinfo") > 0) if (line ~ /^processor/) {
            seen["cpuinfo " line]++
        }
        close("/proc/cpuinfo")
    }
    for (what in seen) print what " | " seen[what]
}
"""


def read_together(container: Container) -> dict[str, int]:
    """Return what several readers in a container have seen, and how often."""
    script = f"awk '{READER % READS}' & " * READERS + "wait"
    counted: dict[str, int] = {}
    for line in container.shell(script, timeout_s=100).splitlines():
        what, _, count = line.partition(" | ")
        what = " ".join(what.split())
        counted[what] = counted.get(what, 0) + int(count)
    return counted


def test_neither_ever_sees_the_other(run: Run, article: tuple[str, ...]) -> None:
    last = (os.cpu_count() or 1) - 1
    first = run("-m", "256m", "--cpuset-cpus", "0", *article)
    second = run("-m", "300m", "--cpuset-cpus", str(last), *article)
    with ThreadPoolExecutor(2) as pool:
        seen_by_first, seen_by_second = pool.map(read_together, (first, second))
    for seen, limit_mib, cpu in ((seen_by_first, 256, 0), (seen_by_second, 300, last)):
        assert seen == {
            f"meminfo MemTotal: {limit_mib * 1024} kB": READERS * READS,
            f"stat cpu{cpu}": READERS * READS,
            "stat lines 1": READERS * READS,
            f"cpuinfo processor : {cpu}": READERS * READS,
        }
