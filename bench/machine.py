"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

from bench.cgroups import host_version
from bench.daemons import ROOT, version_of_lxcfs


def describe(*, with_lxcfs: bool = True) -> dict[str, str]:
    """Return the machine, the versions, and how busy it was with something else."""
    facts = {
        "processor": f"{os.cpu_count()} x {_processor()}",
        "CPUs that are used": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') >> 20} MiB",
        "kernel": platform.release(),
        "cgroups": host_version(),
        "Python": platform.python_version(),
        "procscope": _commit(),
        "load average before": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }
    if with_lxcfs:
        facts["lxcfs"] = version_of_lxcfs()
    return facts


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _commit() -> str:
    """Return the version, and the commit where the sources are a clone."""
    version = next(
        line.split('"')[1]
        for line in (ROOT / "src/procscope/__init__.py").read_text().splitlines()
        if line.startswith("__version__")
    )
    if shutil.which("git") is None:
        return version
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    output = subprocess.run(command, check=False, capture_output=True, text=True)
    return f"{version} ({output.stdout.strip()})" if output.returncode == 0 else version
