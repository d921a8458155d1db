"""What one container's many readers cost another container's single one.

    sudo .venv/bin/python bench/fairness.py [--workers N] [--threads N] [--rounds N] [--src DIR]

Two cgroups are made. A program of THREADS threads reads `meminfo` as fast as it can in the first
one; a paced reader in the second one does the same every few milliseconds. In each round the paced
reader is measured alone, then beside the others. Printed are median and 99th percentile of its
open + read to the end + close, the ratio of the percentiles, and how many reads the many got done.

`--src` takes the daemon from another source tree, so that two versions can be compared in turn.
Needs root, cgroups and a C compiler: Python's threads would wait for each other.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.integration.agents import agent, read  # noqa: E402
from tests.integration.cgroups import Group, container  # noqa: E402

MANY = r"""
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char *path;
static _Atomic long reads;

static void *work(void *unused)
{
    char buffer[65536];
    for (;;) {
        int fd = open(path, O_RDONLY);
        if (fd < 0)
            exit(1);
        while (read(fd, buffer, sizeof buffer) > 0)
            ;
        close(fd);
        reads++;
    }
    return unused;
}

int main(int argc, char **argv)
{
    char line[16];
    pthread_t thread;
    path = argv[1];
    if (!fgets(line, sizeof line, stdin))
        return 1;
    for (int i = argc > 2 ? atoi(argv[2]) : 1; i > 0; i--)
        pthread_create(&thread, NULL, work, NULL);
    if (!fgets(line, sizeof line, stdin))
        return 1;
    printf("%ld\n", reads);
    return 0;
}
"""


class Many:
    """The program with many threads, in a cgroup."""

    def __init__(self, program: Path, path: Path, threads: int, group: Group) -> None:
        self._process = subprocess.Popen(
            [program, path, str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        group.add(self._process.pid)
        self._say()

    def _say(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def end(self) -> int:
        """Return how many reads were made."""
        self._say()
        output, _ = self._process.communicate()
        return int(output)


def paced(path: str, times: int, pause_s: float) -> list[float]:
    """Return how long each read took, in seconds."""
    took = []
    for _ in range(times):
        time.sleep(pause_s)
        begun = time.perf_counter()
        read(path)
        took.append(time.perf_counter() - begun)
    return took


def percentile(values: list[float], percent: float) -> float:
    """Return the value that so many per cent do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def compile_many(folder: Path) -> Path:
    """Return the compiled program."""
    source, program = folder / "many.c", folder / "many"
    source.write_text(MANY)
    subprocess.run(["cc", "-O2", "-pthread", "-o", program, source], check=True)
    return program


def start_daemon(folder: Path, workers: int, src: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """Return the daemon and one of its files."""
    mountpoint = folder / "mount"
    mountpoint.mkdir()
    options = ["--run-directory", str(folder / "run"), "--workers", str(workers)]
    if (src / "procscope/daemon/keeper.py").exists():
        options.append("--no-keeper")
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "procscope", "serve", str(mountpoint), *options],
            env=os.environ | {"PYTHONPATH": str(src)},
            stderr=log,
        )
    path = mountpoint / "proc/meminfo"
    while not path.exists():
        if daemon.poll() is not None:
            raise SystemExit((folder / "log").read_text())
        time.sleep(0.05)
    return daemon, path


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--reads", type=int, default=300)
    parser.add_argument("--pause-ms", type=float, default=2.0)
    parser.add_argument("--src", type=Path, default=ROOT / "src")
    options = parser.parse_args()
    alone: list[float] = []
    beside: list[float] = []
    rates: list[float] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="procscope-bench-")))
        program = compile_many(folder)
        many_group = stack.enter_context(container(memory_bytes=256 << 20))
        one_group = stack.enter_context(container(memory_bytes=128 << 20))
        daemon, path = start_daemon(folder, options.workers, options.src)
        try:
            one = stack.enter_context(agent(one_group))
            measure = (str(path), options.reads, options.pause_ms / 1000)
            for _ in range(options.rounds):
                alone += one.call(paced, *measure)
                many = Many(program, path, options.threads, many_group)
                begun = time.perf_counter()
                beside += one.call(paced, *measure)
                rates.append(many.end() / (time.perf_counter() - begun))
        finally:
            daemon.terminate()
            daemon.wait()
    for name, values in (("alone", alone), ("beside", beside)):
        print(
            f"{name:7} p50 {statistics.median(values) * 1e6:7.0f} us"
            f"   p99 {percentile(values, 99) * 1e6:7.0f} us"
        )
    print(f"ratio of p99 {percentile(beside, 99) / percentile(alone, 99):.1f}")
    print(f"the many: {statistics.median(rates):.0f} reads/s")


if __name__ == "__main__":
    main()
