"""What one container's many readers cost another container's single one.

    sudo .venv/bin/python bench/fairness.py [--workers N] [--many N] [--short-lived] [--elsewhere]

Two cgroups are made. In the first one MANY threads read `meminfo` as fast as they can; with
`--short-lived` each read is made by a process of its own, forked for it. A paced reader in the
second one does the same every few milliseconds. In each round it is measured alone, then beside the
many, so that whatever else the machine does weighs on both. Printed are median and 99th percentile
of its open + read to the end + close over all rounds, the median of the rounds' ratios of them, and
how many reads the many got done.

What many readers cost by the CPU time that they take, whatever answers them, is measured with
`--elsewhere`: they read the kernel's own `meminfo` then.

`--src` takes the daemon from another source tree, so that two versions can be compared in turn.
Needs root, cgroups and a C compiler: Python's threads would wait for each other. Leaves nothing
behind.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *path;
static int short_lived;
static _Atomic long reads;

static int read_once(void)
{
    char buffer[65536];
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return 1;
    while (read(fd, buffer, sizeof buffer) > 0)
        ;
    close(fd);
    return 0;
}

static int read_in_a_child(void)
{
    int status;
    pid_t pid = fork();
    if (pid == 0)
        _exit(read_once());
    return pid < 0 || waitpid(pid, &status, 0) < 0 || status;
}

static void *work(void *unused)
{
    for (;;) {
        if (short_lived ? read_in_a_child() : read_once())
            exit(1);
        reads++;
    }
    return unused;
}

int main(int argc, char **argv)
{
    char line[16];
    pthread_t thread;
    if (argc != 4 || !fgets(line, sizeof line, stdin))
        return 1;
    path = argv[1];
    short_lived = !strcmp(argv[3], "short-lived");
    for (int i = atoi(argv[2]); i > 0; i--)
        if (pthread_create(&thread, NULL, work, NULL))
            return 1;
    if (!fgets(line, sizeof line, stdin))
        return 1;
    printf("%ld\n", reads);
    return 0;
}
"""


class Many:
    """The program with many readers, in a cgroup."""

    def __init__(self, command: list[str], group: Group) -> None:
        """It begins to read when it is in `group`."""
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
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


@contextmanager
def serving(folder: Path, workers: int, src: Path) -> Iterator[Path]:
    """A daemon without a keeper; gives one of its files."""
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
    try:
        path = mountpoint / "proc/meminfo"
        while not path.exists():
            if daemon.poll() is not None:
                raise SystemExit((folder / "log").read_text())
            time.sleep(0.05)
        yield path
    finally:
        # A planned stop: without a keeper the mount ends with the daemon.
        daemon.terminate()
        daemon.wait()


def show(alone: list[list[float]], beside: list[list[float]]) -> None:
    """Print the percentiles of all rounds in microseconds, and the median of the rounds' ratios."""
    print("               p50        p99")
    for name, rounds in (("alone", alone), ("beside", beside)):
        values = [value for one in rounds for value in one]
        print(f"{name:8}" + "".join(f" {percentile(values, p) * 1e6:7.0f} us" for p in (50, 99)))
    ratios = [
        statistics.median(
            percentile(after, p) / percentile(before, p)
            for before, after in zip(alone, beside, strict=True)
        )
        for p in (50, 99)
    ]
    print("ratio   " + "".join(f" {ratio:10.1f}" for ratio in ratios))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--many", type=int, default=64, metavar="N", help="readers at a time")
    parser.add_argument("--short-lived", action="store_true", help="a process for each read")
    parser.add_argument("--elsewhere", action="store_true", help="the many read /proc/meminfo")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--reads", type=int, default=300, help="in each half of a round")
    parser.add_argument("--pause-ms", type=float, default=2.0, help="between two paced reads")
    parser.add_argument("--src", type=Path, default=ROOT / "src")
    options = parser.parse_args()
    alone: list[list[float]] = []
    beside: list[list[float]] = []
    rates: list[float] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="procscope-bench-")))
        program = compile_many(folder)
        path = str(stack.enter_context(serving(folder, options.workers, options.src)))
        many_group = stack.enter_context(container(memory_bytes=256 << 20))
        one = stack.enter_context(agent(stack.enter_context(container(memory_bytes=128 << 20))))
        kind = "short-lived" if options.short_lived else "threads"
        theirs = "/proc/meminfo" if options.elsewhere else path
        command = [str(program), theirs, str(options.many), kind]
        measure = (path, options.reads, options.pause_ms / 1000)
        for _ in range(options.rounds):
            alone.append(one.call(paced, *measure))
            many = Many(command, many_group)
            begun = time.perf_counter()
            beside.append(one.call(paced, *measure))
            rates.append(many.end() / (time.perf_counter() - begun))
    load, _, _ = os.getloadavg()
    print(
        f"{options.workers} workers, {options.many} {kind} of another container,"
        f" load average at the end {load:.1f}"
    )
    show(alone, beside)
    print(f"the many {statistics.median(rates):.0f} reads/s")


if __name__ == "__main__":
    main()
