"""Small parsers of `/proc/PID/*`: pure text in, frozen data out.

Formats: `do_task_stat()` and `proc_pid_status()` in the kernel's `fs/proc/array.c`,
`proc_cgroup_show()` in `kernel/cgroup/cgroup.c`.

Lines end at a line feed and nowhere else. A task may put a carriage return into its name, or what
Unicode calls a line separator, and so pretend to a line of its own; whoever reads such a file as
text must open it with `newline="\\n"`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from procscope.ids import CgroupPath, Pid
from procscope.values import frozen

_PID = re.compile(r"[0-9]{1,10}")
_STATE_FIELD = 0
_START_TIME_FIELD = 19
"""Fields of `/proc/PID/stat` counted from the state, the first one after the comm."""

UNIFIED = ""
"""The name of the cgroup v2 hierarchy in `/proc/PID/cgroup`: it names no controller."""


@frozen
class TaskStat:
    """What procscope needs of `/proc/PID/stat`."""

    state: str
    """One letter: R, S, D, …"""
    start_ticks: int
    """Start of the process, in USER_HZ ticks since boot (CLOCK_BOOTTIME)."""


def parse_task_stat(stat: bytes) -> TaskStat:
    """Return state and start time. The comm may hold anything, `) R 1` too: split after the last.

    Raises ValueError where `stat` is no such line.
    """
    _, parenthesis, rest = stat.rpartition(b") ")
    fields = rest.split()
    if not parenthesis or len(fields) <= _START_TIME_FIELD:
        raise ValueError(f"not a stat line: {stat[:60]!r}")
    if len(fields[_STATE_FIELD]) != 1 or not fields[_START_TIME_FIELD].isdigit():
        raise ValueError(f"not a stat line: {stat[:60]!r}")
    return TaskStat(
        state=fields[_STATE_FIELD].decode("ascii", "replace"),
        start_ticks=int(fields[_START_TIME_FIELD]),
    )


def parse_cgroups(text: str) -> Mapping[str, CgroupPath]:
    """Return `/proc/PID/cgroup` as controller -> path.

    v1 controllers mounted together (`cpu,cpuacct`) get one entry each, named hierarchies are
    `name=systemd`, the v2 hierarchy is `UNIFIED`. Lines that are none are skipped.
    """
    paths: dict[str, CgroupPath] = {}
    for line in text.split("\n"):
        hierarchy, colon, rest = line.partition(":")
        controllers, second_colon, path = rest.partition(":")
        if not (colon and second_colon and hierarchy.isdigit() and path.startswith("/")):
            continue
        for controller in controllers.split(","):
            paths[controller] = CgroupPath(path.removesuffix(" (deleted)"))
    return paths


def parse_nspid(status: str) -> tuple[Pid, ...]:
    """Return the pids of `NSpid:` in `/proc/PID/status`, outermost namespace first.

    Empty where the line is missing or garbled.
    """
    for line in status.split("\n"):
        key, _, value = line.partition(":")
        if key == "NSpid":
            fields = value.split()
            if all(_PID.fullmatch(field) for field in fields):
                return tuple(Pid(int(field)) for field in fields)
    return ()
