"""What `/proc/PID` tells of a container's tasks: states, start times, numbers in its namespace."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable

from procscope.cgroup.files import RUN_OUT
from procscope.cgroup.model import TaskCounts
from procscope.ids import Pid
from procscope.linux.procfs import TaskStat, parse_nspid, parse_task_stat

_STAT_BYTES = 2048
_MAX_BIRTH_CANDIDATES = 256
"""Processes looked at to find a container's first one; done once in its life."""


def read_task_stat(proc: str, pid: Pid) -> TaskStat | None:
    """Return the state and start of the thread `pid`; None where it is gone.

    Raises OSError where this process has run out of descriptors or memory.
    """
    try:
        return parse_task_stat(_read_stat(proc, pid))
    except ValueError:
        return None


def _read_stat(proc: str, pid: Pid) -> bytes:
    """Return the line of the thread `pid`, empty where it is gone. Raises as `read_task_stat`."""
    try:
        # Below task/ the kernel does not add up the whole process's times for each of its threads.
        fd = os.open(f"{proc}/{pid}/task/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in RUN_OUT:
            raise
        return b""
    try:
        return os.read(fd, _STAT_BYTES)
    except OSError:
        return b""
    finally:
        os.close(fd)


def read_nspid(proc: str, pid: Pid) -> tuple[Pid, ...]:
    """Return the pid's numbers in its PID namespaces, outermost first; empty where it is gone.

    Raises OSError where this process has run out of descriptors or memory.
    """
    try:
        path = f"{proc}/{pid}/status"
        with open(path, encoding="utf-8", errors="replace", newline="\n") as status:
            return parse_nspid(status.read())
    except OSError as error:
        if error.errno in RUN_OUT:
            raise
        return ()


def count_states(proc: str, threads: Iterable[Pid]) -> TaskCounts:
    """Return how many of `threads` run, are blocked, and exist."""
    running = blocked = total = 0
    for thread in threads:
        # Thousands are looked at, and of the fifty fields only the state. The comm before it may
        # hold anything.
        state = _read_stat(proc, thread).rpartition(b") ")[2][:2]
        total += bool(state)
        running += state == b"R "
        blocked += state == b"D "
    return TaskCounts(running=running, blocked=blocked, total=total)


def find_birth_ticks(proc: str, processes: Iterable[Pid]) -> int | None:
    """Return the start of the container's first process in ticks since boot; None without one.

    The init of the container's PID namespace is its first process. A container that shares
    another's namespace, or the host's, is as old as its oldest process. Namespaces that were made
    inside the container are deeper than its own, and their inits do not count.
    """
    starts: list[tuple[int, bool, int]] = []
    for pid in itertools.islice(processes, _MAX_BIRTH_CANDIDATES):
        stat, numbers = read_task_stat(proc, pid), read_nspid(proc, pid)
        if stat is not None and numbers:
            starts.append((len(numbers), numbers[-1] == 1, stat.start_ticks))
    if not starts:
        return None
    own_depth = min(depth for depth, _, _ in starts)
    inits = [ticks for depth, is_init, ticks in starts if depth == own_depth and is_init]
    return min(inits or [ticks for _, _, ticks in starts])


def newest_pid(proc: str, processes: Iterable[Pid]) -> int:
    """Return the newest process's pid as its own namespace numbers it; 0 where there is none.

    The kernel hands out pids upwards, so the highest is the newest but for a wrap-around.
    """
    for pid in sorted(processes, reverse=True):
        numbers = read_nspid(proc, pid)
        if numbers:
            return numbers[-1]
    return 0
