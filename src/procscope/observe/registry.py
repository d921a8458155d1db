"""Every virtual file: its place in the mount, and what is read to render it.

One row for each file. The formulas are in `procscope.views`, a module for each file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from procscope.cgroup.model import Hugetlb, Missing, Swap
from procscope.ids import CpuId
from procscope.observe.container import ContainerObserver
from procscope.observe.host import STEADY_NS, HostFiles
from procscope.values import frozen
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
from procscope.views.hugepage import size_name
from procscope.views.swap import swap_space

Render = Callable[[HostFiles, ContainerObserver], bytes]


@frozen
class View:
    """One virtual file below `proc/`."""

    name: str
    """Path below `proc/`, and of the host's own file below `/proc`."""
    render: Render
    mode: int = 0o444
    errors_reach_reader: bool = False
    """An OSError is what the container is to see, as from the kernel; else it gets the host's."""
    by_ticks: bool = False
    """It moves when the clock ticks, together with other views."""
    follows_limits: bool = False
    """It changes with the container's limits, and not with what the container does."""


_MOST_CUTS = 16
_READER = 1
"""Whoever reads would be running on a machine of its own; here it sleeps until it is answered."""


def _meminfo(host: HostFiles, container: ContainerObserver) -> bytes:
    told = host.memory()

    def make() -> bytes:
        of_host, overcommit_ratio = told
        cgroup, now = container.cgroup, of_host
        memory = cgroup.memory(with_swap=of_host.swap_total_bytes > 0)
        if memory.stat.unevictable_bytes:
            # How much is locked is nothing that an administrator sets.
            cgroup.spoil()
            now = meminfo.parse(host.read_proc("meminfo"))
        hugetlb: Hugetlb | Literal[Missing.ABSENT] = Missing.ABSENT
        if of_host.huge_pages:
            hugetlb = cgroup.hugetlb(size_name(of_host.huge_page_kb))
        return meminfo.render(now, memory, hugetlb, overcommit_ratio)

    return container.kept("meminfo", make, told)


def _swaps(host: HostFiles, container: ContainerObserver) -> bytes:
    of_host = host.read_proc("swaps", max_age_ns=STEADY_NS)
    host_total_bytes = host.memory()[0].swap_total_bytes
    swap: Swap = Missing.ABSENT
    if host_total_bytes:
        swap = container.cgroup.memory().swap
    return swaps.render(of_host, swap_space(swap, host_total_bytes))


def _cpuinfo(host: HostFiles, container: ContainerObserver) -> bytes:
    cuts = host.parsed("cpuinfo", _CpuinfoCuts)
    return cuts.of(container.visible_cpus())


class _CpuinfoCuts:
    """One text of the host's, and what was lately made of it for sets of CPUs."""

    def __init__(self, of_host: bytes) -> None:
        self._of_host = of_host
        self._cuts: dict[tuple[CpuId, ...], bytes] = {}

    def of(self, visible: tuple[CpuId, ...]) -> bytes:
        cut = self._cuts.get(visible)
        if cut is None:
            if len(self._cuts) >= _MOST_CUTS:
                self._cuts.clear()
            cut = self._cuts[visible] = cpuinfo.render(self._of_host, visible)
        return cut


def _stat(host: HostFiles, container: ContainerObserver) -> bytes:
    tasks = container.active_tasks()
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
    # Only the names of the disks are taken from it.
    of_host = host.read_proc("diskstats", max_age_ns=STEADY_NS)
    return container.kept(
        "diskstats", lambda: diskstats.render(of_host, container.cgroup.io()), of_host
    )


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
        View("cpuinfo", _cpuinfo, follows_limits=True),
        View("diskstats", _diskstats),
        View("loadavg", _loadavg),
        View("meminfo", _meminfo),
        View("pressure/cpu", _pressure("cpu"), errors_reach_reader=True),
        View("pressure/io", _pressure("io"), errors_reach_reader=True),
        View("pressure/memory", _pressure("memory"), errors_reach_reader=True),
        View("slabinfo", _slabinfo, mode=0o400),
        View("stat", _stat, by_ticks=True),
        View("swaps", _swaps),
        View("uptime", _uptime, by_ticks=True),
    )
}
