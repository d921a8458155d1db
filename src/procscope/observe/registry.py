"""Every virtual file: its place in the mount, and what is read to render it.

One row for each file. The formulas are in `procscope.views`, a module for each file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from procscope.observe.container import ContainerObserver
from procscope.observe.host import STEADY_NS, HostFiles
from procscope.views import (
    cpuinfo,
    diskstats,
    loadavg,
    meminfo,
    slabinfo,
    stat,
    swaps,
    uptime,
)
from procscope.views.hugepage import default_size_name
from procscope.views.swap import swap_space

Render = Callable[[HostFiles, ContainerObserver], bytes]


@dataclass(frozen=True, slots=True)
class View:
    """One virtual file below `proc/`."""

    name: str
    """Path below `proc/`, and of the host's own file below `/proc`."""
    render: Render
    mode: int = 0o444
    errors_reach_reader: bool = False
    """An OSError is what the container is to see, as from the kernel; else it gets the host's."""


_READER = 1
"""Whoever reads would be running on a machine of its own; here it sleeps until it is answered."""


def _meminfo(host: HostFiles, container: ContainerObserver) -> bytes:
    host_meminfo = host.read_proc("meminfo")
    hugetlb = container.hugetlb(default_size_name(host_meminfo))
    return meminfo.render(host_meminfo, container.memory(), hugetlb, host.overcommit_ratio())


def _swaps(host: HostFiles, container: ContainerObserver) -> bytes:
    host_total_bytes = meminfo.host_swap_total_bytes(host.read_proc("meminfo"))
    space = swap_space(container.memory().swap, host_total_bytes)
    return swaps.render(host.read_proc("swaps"), space)


def _cpuinfo(host: HostFiles, container: ContainerObserver) -> bytes:
    return cpuinfo.render(host.read_proc("cpuinfo", max_age_ns=STEADY_NS), container.visible_cpus())


def _stat(host: HostFiles, container: ContainerObserver) -> bytes:
    tasks = container.task_counts()
    visible = container.visible_cpus()
    ledger = container.cpu_ledger(visible)
    running = tasks.running + _READER
    return stat.render(host.read_proc("stat"), ledger, visible, running, tasks.blocked)


def _uptime(host: HostFiles, container: ContainerObserver) -> bytes:
    visible = container.visible_cpus()
    return uptime.render(container.age_ns(), container.cpu_ledger(visible), visible)


def _loadavg(host: HostFiles, container: ContainerObserver) -> bytes:
    tasks = container.task_counts()
    running = tasks.running + _READER
    return loadavg.render(container.load(), running, tasks.total, container.newest_pid())


def _diskstats(host: HostFiles, container: ContainerObserver) -> bytes:
    return diskstats.render(host.read_proc("diskstats"), container.cgroup.io())


def _slabinfo(host: HostFiles, container: ContainerObserver) -> bytes:
    try:
        of_host = host.read_proc("slabinfo", max_age_ns=STEADY_NS)
    except PermissionError:
        # A daemon without root. Nothing but the header would be taken from it.
        of_host = b""
    return slabinfo.render(of_host)


def _pressure(resource: Literal["cpu", "io", "memory"]) -> Render:
    return lambda host, container: container.cgroup.pressure(resource)


VIEWS: Mapping[str, View] = {
    view.name: view
    for view in (
        View("cpuinfo", _cpuinfo),
        View("diskstats", _diskstats),
        View("loadavg", _loadavg),
        View("meminfo", _meminfo),
        View("pressure/cpu", _pressure("cpu"), errors_reach_reader=True),
        View("pressure/io", _pressure("io"), errors_reach_reader=True),
        View("pressure/memory", _pressure("memory"), errors_reach_reader=True),
        View("slabinfo", _slabinfo, mode=0o400),
        View("stat", _stat),
        View("swaps", _swaps),
        View("uptime", _uptime),
    )
}
