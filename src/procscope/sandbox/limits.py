"""The limits of a sandbox as the control files of cgroup v1 and v2 take them."""

from __future__ import annotations

from collections.abc import Mapping

from procscope.cgroup.model import Missing
from procscope.linux.cpulist import format_cpulist
from procscope.sandbox import cgroupfs
from procscope.sandbox.spec import SandboxSpec
from procscope.units import CPU_PERIOD_USEC


def write_limits(spec: SandboxSpec, directories: Mapping[str, str]) -> list[str]:
    """Write the limits that were asked for and return why one could not be."""
    unlimited: list[str] = []
    for option, controller, settings in _settings(spec, directories):
        directory = directories.get(controller)
        if directory is None or not cgroupfs.exists(directory, settings[0][0]):
            unlimited.append(f"{option}: the {controller} controller is not available here")
            continue
        for file, text in settings:
            try:
                cgroupfs.write(directory, file, text)
            except OSError as error:
                unlimited.append(
                    f"{option}: writing {text} to {directory}/{file}: {cgroupfs.reason(error)}"
                )
                break
    return unlimited


_Settings = list[tuple[str, str]]


def _settings(
    spec: SandboxSpec, directories: Mapping[str, str]
) -> list[tuple[str, str, _Settings]]:
    """Return (option, controller, files to write in their order) for each limit asked for."""
    settings: list[tuple[str, str, _Settings]] = []
    if spec.memory_bytes is not None:
        settings.append(("--memory", "memory", _memory(spec, directories.get("memory"))))
    if spec.cpu_quota_usec is not None:
        settings.append(("--cpus", "cpu", _cpu(spec.cpu_quota_usec, directories.get("cpu"))))
    if spec.cpuset is not None:
        cpus = format_cpulist(spec.cpuset)
        settings.append(("--cpuset-cpus", "cpuset", [("cpuset.cpus", cpus)]))
    return settings


def _memory(spec: SandboxSpec, directory: str | None) -> _Settings:
    """Return the memory limit, then the swap limit where this kernel accounts swap."""
    assert spec.memory_bytes is not None
    total = spec.memory_swap_bytes
    if directory is None or cgroupfs.exists(directory, "memory.max"):
        settings = [("memory.max", str(spec.memory_bytes))]
        if directory is not None and cgroupfs.exists(directory, "memory.swap.max"):
            # v2 limits swap by itself, Docker's option is the sum.
            swap = "max" if not isinstance(total, int) else str(total - spec.memory_bytes)
            settings.append(("memory.swap.max", swap))
        return settings
    settings = [("memory.limit_in_bytes", str(spec.memory_bytes))]
    if cgroupfs.exists(directory, "memory.memsw.limit_in_bytes"):
        # After the memory limit, which may never be above it.
        memsw = "-1" if total is Missing.UNLIMITED else str(total)
        settings.append(("memory.memsw.limit_in_bytes", memsw))
    return settings


def _cpu(quota_usec: int, directory: str | None) -> _Settings:
    if directory is None or cgroupfs.exists(directory, "cpu.max"):
        return [("cpu.max", f"{quota_usec} {CPU_PERIOD_USEC}")]
    return [
        ("cpu.cfs_period_us", str(CPU_PERIOD_USEC)),
        ("cpu.cfs_quota_us", str(quota_usec)),
    ]
