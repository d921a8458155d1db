"""What a daemon costs, by the kernel's own accounts of all its processes together."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

from bench.cgroups import cpu_ns, processes

_SWITCHES = re.compile(r"^(?:non)?voluntary_ctxt_switches:\s*(\d+)$", re.MULTILINE)
_PSS = re.compile(r"^Pss:\s*(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Account:
    """The processes of one cgroup."""

    cgroup: Path

    def cpu_ns(self) -> int:
        """Return the user and system time of all of them, since it was made."""
        return cpu_ns(self.cgroup)

    def switches(self) -> int:
        """Return the context switches of all threads that there are."""
        return sum(
            sum(map(int, _SWITCHES.findall(_read(status))))
            for pid in processes(self.cgroup)
            for status in Path(f"/proc/{pid}/task").glob("*/status")
        )

    def pss_bytes(self) -> int:
        """Return the memory: what several processes share counts once.

        This is proportional set size. Pages of the shared memories are part of it.
        """
        return 1024 * sum(
            int(number)
            for pid in processes(self.cgroup)
            for number in _PSS.findall(_read(Path(f"/proc/{pid}/smaps_rollup")))
        )

    def cpu_ns_of(self, name: str) -> int:
        """Return the CPU time of the processes called `name`, the kernel's count for each."""
        total_ns = 0
        for pid in processes(self.cgroup):
            if _read(Path(f"/proc/{pid}/comm")).strip() == name:
                # The first number is time on a CPU (Documentation/scheduler/sched-stats.rst).
                total_ns += int(_read(Path(f"/proc/{pid}/schedstat")).split()[0])
        return total_ns


def _read(path: Path) -> str:
    """Return a file of a process; nothing where it has just gone."""
    with contextlib.suppress(OSError):
        return path.read_text()
    return ""
