"""Runs in a container: many readers at once of what must hold between files and between reads.

Standard library only. Usage: readers.py PROCESSES READS. Prints one line if all is well.
"""

import os
import sys
import time


def columns() -> dict[str, list[int]]:
    """The lines of the CPUs in /proc/stat."""
    with open("/proc/stat", encoding="ascii") as file:
        rows = [line.split() for line in file]
    return {row[0]: [int(ticks) for ticks in row[1:]] for row in rows if row[0].startswith("cpu")}


def age_s() -> float:
    """Seconds since this container's first process started, by the kernel's clock."""
    with open("/proc/1/stat", encoding="ascii", errors="replace") as file:
        start_ticks = int(file.read().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - start_ticks / 100


def check(before: dict[str, list[int]], now: dict[str, list[int]], born_s: float) -> None:
    """Raise AssertionError where a column went backwards or a CPU's columns are not its age."""
    for name, ticks in now.items():
        old = before.get(name, ticks)
        assert all(a <= b for a, b in zip(old, ticks, strict=True)), (name, old, ticks)
    cpus = [ticks for name, ticks in now.items() if name != "cpu"]
    assert [sum(column) for column in zip(*cpus, strict=True)] == now["cpu"], now
    assert all(sum(ticks) <= born_s * 100 + 1 for ticks in cpus), (now, born_s)


def reader(reads: int) -> None:
    """Read every file again and again, and check it."""
    before: dict[str, list[int]] = {}
    for _ in range(reads):
        now = columns()
        check(before, now, age_s())
        before = now
        with open("/proc/meminfo", encoding="ascii") as file:
            text = file.read()
        assert text.startswith("MemTotal:         262144 kB\n"), text[:40]
        assert text.endswith(" kB\n"), text[-40:]
        with open("/proc/cpuinfo", encoding="ascii") as file:
            assert file.read().count("processor\t:") == len(now) - 1


def main() -> None:
    """Start the readers and wait for them."""
    processes, reads = int(sys.argv[1]), int(sys.argv[2])
    children = []
    for _ in range(processes):
        pid = os.fork()
        if pid == 0:
            reader(reads)
            os._exit(0)
        children.append(pid)
    failed = [pid for pid in children if os.waitpid(pid, 0)[1] != 0]
    if failed:
        sys.exit(f"{len(failed)} of {processes} readers failed")
    print(f"{processes} readers: ok")


if __name__ == "__main__":
    main()
