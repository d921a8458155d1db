"""The files of the mount, read as the programs that use them do."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from procscope.linux.cpulist import parse_cpulist
from tests.integration import agents
from tests.integration.agents import Agent

PROC_FILES = (
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "pressure/cpu",
    "pressure/io",
    "pressure/memory",
    "slabinfo",
    "stat",
    "swaps",
    "uptime",
)
HZ = os.sysconf("SC_CLK_TCK")
CPU_FOLDER = Path("/sys/devices/system/cpu")
ONLINE = parse_cpulist((CPU_FOLDER / "online").read_text())


def proc(mount: Path, name: str, reader: Agent) -> str:
    """`proc/NAME` as `reader` sees it."""
    return reader.call(agents.read, str(mount / "proc" / name)).decode()


def cpu_list(mount: Path, name: str, reader: Agent) -> tuple[int, ...]:
    """A list of CPUs in `sys/devices/system/cpu`."""
    text = reader.call(agents.read, f"{mount}{CPU_FOLDER}/{name}").decode()
    return tuple(parse_cpulist(text)) if text.strip() else ()


def meminfo_of(text: str) -> dict[str, int]:
    """Fields in kB."""
    return {
        key: int(value.split()[0])
        for key, _, value in (line.partition(":") for line in text.splitlines())
    }


def meminfo(mount: Path, reader: Agent) -> dict[str, int]:
    """`proc/meminfo` in kB."""
    return meminfo_of(proc(mount, "meminfo", reader))


def cpu_lines(text: str) -> dict[str, list[int]]:
    """The `cpu` lines of `stat`, `cpu` being their sum."""
    lines = (line.split() for line in text.splitlines() if line.startswith("cpu"))
    return {fields[0]: [int(field) for field in fields[1:]] for fields in lines}


def stat(mount: Path, reader: Agent) -> dict[str, list[int]]:
    """The `cpu` lines of `proc/stat`."""
    return cpu_lines(proc(mount, "stat", reader))


def visible_everywhere(mount: Path, reader: Agent) -> Mapping[str, tuple[int, ...]]:
    """The CPUs that a reader sees, by each place that tells."""
    cpuinfo = proc(mount, "cpuinfo", reader).splitlines()
    folder = reader.call(os.listdir, f"{mount}{CPU_FOLDER}")
    lines = stat(mount, reader).keys() - {"cpu"}
    return {
        "cpuinfo": tuple(
            int(line.partition(":")[2]) for line in cpuinfo if line.startswith("processor")
        ),
        "stat": tuple(sorted(int(name.removeprefix("cpu")) for name in lines)),
        "folders": tuple(
            sorted(int(n[3:]) for n in folder if n.startswith("cpu") and n[3:].isdigit())
        ),
        **{name: cpu_list(mount, name, reader) for name in ("online", "present", "possible")},
    }
