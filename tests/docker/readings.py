"""What the tools print, as numbers."""

from __future__ import annotations

import re

KIB = 1024
MIB_KB = 1024
"""Kilobytes in a MiB."""


def cpu_list(text: str) -> list[int]:
    """Return the ids of a list as in `sys/devices/system/cpu/online`."""
    ids: list[int] = []
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            ids += range(int(first), int(last or first) + 1)
    return ids


def meminfo(text: str) -> dict[str, int]:
    """Return the fields in kB."""
    fields = (line.partition(":") for line in text.splitlines())
    return {name: int(rest.split()[0]) for name, _, rest in fields}


def free(text: str) -> dict[str, int]:
    """Return the `Mem` line by its headings, in kB, and `swap`, the total of the other line."""
    heading, memory, swap = (line.split() for line in text.splitlines()[:3])
    values = dict(zip(heading, (int(number) for number in memory[1:]), strict=True))
    return values | {"swap": int(swap[1])}


def stat_cpus(text: str) -> list[int]:
    """Return the CPUs that have a line in `/proc/stat`."""
    return [int(found) for found in re.findall(r"^cpu(\d+) ", text, re.MULTILINE)]


def cpuinfo_cpus(text: str) -> list[int]:
    """Return the `processor` numbers of `/proc/cpuinfo`."""
    return [int(found) for found in re.findall(r"^processor\s*: (\d+)", text, re.MULTILINE)]


def top_cpus(text: str) -> list[int]:
    """Return the CPUs of `top -b -1`, which may print several on a line."""
    return sorted(int(found) for found in re.findall(r"%Cpu(\d+)\s*:", text))


def top_percentages(text: str) -> dict[str, float]:
    """Return the summary line of the last iteration of `top -b`, by its two-letter names."""
    line = re.findall(r"^%Cpu\(s\):.*$", text, re.MULTILINE)[-1]
    return {name: float(number) for number, name in re.findall(r"([\d.]+) ([a-z]{2})\b", line)}


def mpstat_percentages(text: str) -> dict[str, dict[str, float]]:
    """Return the averages of `mpstat -P ALL`, by CPU (`all` or an id) and column."""
    rows = [line.split() for line in text.splitlines() if line.startswith("Average:")]
    heading = rows[0]
    return {
        row[1]: {name: float(number) for name, number in zip(heading[2:], row[2:], strict=True)}
        for row in rows[1:]
    }


def vmstat_percentages(text: str) -> dict[str, int]:
    """Return the last line of `vmstat`, by its headings."""
    lines = text.splitlines()
    heading = next(line for line in lines if " us " in line).split()
    return dict(zip(heading, (int(number) for number in lines[-1].split()), strict=False))


def iostat_written_kb(text: str) -> dict[str, float]:
    """Return what `iostat -d -k` says was written, by device."""
    rows = [line.split() for line in text.splitlines() if line.strip()]
    start, heading = next((i, row) for i, row in enumerate(rows) if row[0].startswith("Device"))
    column = heading.index("kB_wrtn")
    return {row[0]: float(row[column]) for row in rows[start + 1 :]}


def lscpu(text: str) -> dict[str, str]:
    """Return the fields."""
    fields = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in fields}


def htop_cpus(screen: str) -> list[int]:
    """Return the CPUs that htop draws as online, of its first screen.

    It numbers the meters unless only one CPU is online, and draws one also for each id below the
    highest that has no folder, as offline.
    """
    first_screen = screen.partition("Swp")[0]
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][0-9A-Z]", "", first_screen)
    meters = re.findall(r"(CPU|\d+)\[[| ]*(offline|[\d.]+%)\]", plain)
    return sorted(
        int(label) if label.isdecimal() else place
        for place, (label, value) in enumerate(meters)
        if value != "offline"
    )
