"""On which CPU a task runs, and where the calling process may run.

`/proc/PID/stat` is written by `do_task_stat()` in the kernel's `fs/proc/array.c`, the policies are
those of sched(7).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Set as AbstractSet
from typing import Final

from procscope.ids import CpuId, Pid

_CPU_FIELD: Final = 36
"""`processor` of `/proc/PID/stat`, counted from the state, the first field after the comm."""
_CAP_SYS_NICE: Final = 23
_EVERY_UID: Final = [b"0", b"0", b"4294967295"]
"""The map of the first user namespace."""


def cpu_of(pid: Pid, proc: str = "/proc") -> CpuId | None:
    """Return the CPU that a task runs on, or ran on last; None where there is no such task."""
    try:
        # The task's own file: that of its process adds up the times of all threads.
        with open(f"{proc}/{pid}/task/{pid}/stat", "rb", buffering=0) as file:
            return CpuId(int(file.read().rpartition(b") ")[2].split()[_CPU_FIELD]))
    except (OSError, ValueError, IndexError):
        return None


def may_leave_idle_class(proc: str = "/proc") -> bool:
    """Tell whether this process may go back from SCHED_IDLE to SCHED_OTHER.

    Anybody may go there. The way back wants CAP_SYS_NICE in the first user namespace, which is not
    seen from within another (`user_check_sched_setscheduler()` in `kernel/sched/syscalls.c`).
    """
    try:
        with open(f"{proc}/self/uid_map", "rb") as uid_map:
            if uid_map.read().split() != _EVERY_UID:
                return False
        with open(f"{proc}/self/status", "rb") as status:
            for line in status:
                if line.startswith(b"CapEff:"):
                    return bool(int(line.split()[1], 16) >> _CAP_SYS_NICE & 1)
    except (OSError, ValueError):
        return False
    return False


def let_run(pid: Pid) -> None:
    """Put a task beside the others again: SCHED_OTHER. Raises OSError."""
    os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))


class Placement:
    """Where the calling process may run: as its owner wants it, or as was asked for since."""

    def __init__(self) -> None:
        self._cpus: AbstractSet[int] = frozenset()
        """Where it could run before; empty where nothing was changed."""
        self._makes_way = False
        self._off: CpuId | None = None

    def make_way_on(self, cpu: CpuId) -> bool:
        """Stay on `cpu`, and behind every other task there: SCHED_IDLE.

        Tells whether that is so: not where this process may not run there, nor where its owner has
        given it a class of its own.
        """
        allowed = self._cpus or os.sched_getaffinity(0)
        if cpu not in allowed:
            return False
        if not self._makes_way and os.sched_getscheduler(0) != os.SCHED_OTHER:
            return False
        self._cpus = allowed
        try:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            self._makes_way = True
            os.sched_setaffinity(0, {cpu})
        except OSError:
            # musl has no sched_setscheduler(3), and CPUs go.
            self.restore()
            return False
        return True

    def keep_off(self, cpu: CpuId) -> None:
        """Run on any other CPU than this one, if there is another."""
        if cpu == self._off:
            return
        self._off = cpu
        self._cpus = self._cpus or os.sched_getaffinity(0)
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, self._cpus - {cpu} or self._cpus)

    def restore(self) -> None:
        """Run where it could run before, and beside others."""
        if self._makes_way:
            self._makes_way = False
            with contextlib.suppress(OSError):
                let_run(Pid(0))
        if self._cpus:
            # Of those that its cgroup's cpuset has no more, the kernel leaves out which are gone.
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, self._cpus)
            self._cpus = frozenset()
            self._off = None
