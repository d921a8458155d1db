"""`/proc/meminfo`, in the layout of meminfo_proc_show() in the kernel's `fs/proc/meminfo.c`.

Names and order are the host file's. Each field is one of three things: computed from what the
cgroup knows, a fact of the hardware that passes through, or 0. A field that no rule names is 0,
because a number of the host's memory in use would tell of other containers. That covers
`Balloon`, `Unaccepted`, `GPUActive`, `GPUReclaim`, `CmaTotal`, `CmaFree`, `ShmemPmdMapped`,
`FilePmdMapped`, `HighTotal`, `HighFree`, `Quicklists`, `MmapCopy` and whatever comes next.
"""

from __future__ import annotations

from functools import lru_cache
from operator import attrgetter
from typing import Literal

from procscope.cgroup.model import Hugetlb, Memory, MemoryStat, Missing
from procscope.values import frozen
from procscope.views.swap import SwapSpace, swap_space
from procscope.views.text import KIB, clamp, unsigned

_HARDWARE = frozenset(
    {
        b"DirectMap4k",
        b"DirectMap64k",
        b"DirectMap1M",
        b"DirectMap2M",
        b"DirectMap4M",
        b"DirectMap1G",
        b"DirectMap2G",
        b"EarlyMemtestBad",
        b"HardwareCorrupted",
        b"Hugepagesize",
        b"VmallocTotal",
    }
)
"""What the machine has, whoever uses it."""

_Fields = dict[bytes, int]


def render(
    host: HostMemory,
    memory: Memory,
    hugetlb: Hugetlb | Literal[Missing.ABSENT],
    overcommit_ratio: int,
) -> bytes:
    """Return the memory of a machine that has the container's limit and nothing else.

    Every amount of memory is at most MemTotal, and every sum that the kernel prints next to its
    parts (Active, Inactive, Slab) is their sum here too. Without a limit, or with one above the
    host, MemTotal is the host's. `overcommit_ratio` is vm.overcommit_ratio in percent; `hugetlb`
    is of the default page size.
    """
    layout = host.layout
    total_kb = host.total_kb
    if not isinstance(memory.limit.limit_bytes, Missing):
        total_kb = min(total_kb, memory.limit.limit_bytes // KIB)
    swap = swap_space(memory.swap, host.swap_total_bytes)
    fields = _memory_fields(memory.stat, total_kb)
    fields |= _free_fields(memory, total_kb)
    fields |= _swap_fields(memory.stat, swap, total_kb, overcommit_ratio)
    fields |= _huge_page_fields(hugetlb, host)
    fields[b"Mlocked"] = min(host.mlocked_kb, fields[b"Unevictable"])
    fields.update(zip(layout.hardware, host.hardware, strict=True))
    return layout.template % tuple([fields.get(name, 0) for name in layout.names])


def _memory_fields(stat: MemoryStat, total_kb: int) -> _Fields:
    """Return what the container's memory is used for."""

    def kb(amount_bytes: int) -> int:
        kb = amount_bytes // KIB
        return kb if kb < total_kb else total_kb

    # Where the sum of two parts would exceed the total, the second is what the first leaves.
    active_anon = kb(stat.active_anon_bytes)
    active_file = min(kb(stat.active_file_bytes), total_kb - active_anon)
    inactive_anon = kb(stat.inactive_anon_bytes)
    inactive_file = min(kb(stat.inactive_file_bytes), total_kb - inactive_anon)
    reclaimable = kb(stat.slab_reclaimable_bytes)
    unreclaimable = min(kb(stat.slab_unreclaimable_bytes), total_kb - reclaimable)
    return {
        b"MemTotal": total_kb,
        b"LowTotal": total_kb,
        b"Cached": kb(stat.file_bytes),
        b"SwapCached": kb(stat.swapcached_bytes),
        b"Active": active_anon + active_file,
        b"Inactive": inactive_anon + inactive_file,
        b"Active(anon)": active_anon,
        b"Inactive(anon)": inactive_anon,
        b"Active(file)": active_file,
        b"Inactive(file)": inactive_file,
        b"Unevictable": kb(stat.unevictable_bytes),
        b"Dirty": kb(stat.file_dirty_bytes),
        b"Writeback": kb(stat.file_writeback_bytes),
        b"AnonPages": kb(stat.anon_bytes),
        b"Mapped": kb(stat.file_mapped_bytes),
        b"Shmem": kb(stat.shmem_bytes),
        b"KReclaimable": reclaimable,
        b"Slab": reclaimable + unreclaimable,
        b"SReclaimable": reclaimable,
        b"SUnreclaim": unreclaimable,
        b"KernelStack": kb(stat.kernel_stack_bytes),
        b"PageTables": kb(stat.pagetables_bytes),
        b"SecPageTables": kb(stat.sec_pagetables_bytes),
        b"VmallocUsed": kb(stat.vmalloc_bytes),
        b"Percpu": kb(stat.percpu_bytes),
        b"AnonHugePages": kb(stat.anon_thp_bytes),
        b"ShmemHugePages": kb(stat.shmem_thp_bytes),
        b"FileHugePages": kb(stat.file_thp_bytes),
        b"Zswap": kb(stat.zswap_bytes),
        b"Zswapped": kb(stat.zswapped_bytes),
    }


def _free_fields(memory: Memory, total_kb: int) -> _Fields:
    stat = memory.stat
    free_kb = clamp((total_kb * KIB - memory.limit.usage_bytes) // KIB, total_kb)
    reclaimable_bytes = (
        stat.active_file_bytes + stat.inactive_file_bytes + stat.slab_reclaimable_bytes
    )
    available_kb = clamp(free_kb + reclaimable_bytes // KIB, total_kb)
    return {b"MemFree": free_kb, b"LowFree": free_kb, b"MemAvailable": available_kb}


def _swap_fields(
    stat: MemoryStat, swap: SwapSpace, total_kb: int, overcommit_ratio: int
) -> _Fields:
    swap_total_kb = swap.total_bytes // KIB
    committed_bytes = stat.anon_bytes + stat.shmem_bytes + swap.used_bytes
    return {
        b"SwapTotal": swap_total_kb,
        b"SwapFree": (swap.total_bytes - swap.used_bytes) // KIB,
        # The ratio may be above 100, so this alone may exceed all memory and swap.
        b"CommitLimit": swap_total_kb + total_kb * max(0, overcommit_ratio) // 100,
        b"Committed_AS": clamp(committed_bytes // KIB, total_kb + swap_total_kb),
    }


def _huge_page_fields(hugetlb: Hugetlb | Literal[Missing.ABSENT], host: HostMemory) -> _Fields:
    """Return the pool of huge pages; it is beside the memory limit, not below it.

    Without the controller nothing is known of what the container uses: no field, so 0.
    """
    page_kb, total = host.huge_page_kb, host.huge_pages
    if isinstance(hugetlb, Missing) or page_kb == 0:
        return {}
    if not isinstance(hugetlb.limit_bytes, Missing):
        total = min(total, hugetlb.limit_bytes // (page_kb * KIB))
    used = -(-hugetlb.usage_bytes // (page_kb * KIB))
    return {
        b"HugePages_Total": total,
        b"HugePages_Free": clamp(total - used, total),
        b"Hugetlb": total * page_kb,
    }


@frozen
class _Layout:
    """What is the same at every read of one kernel's file."""

    names: tuple[bytes, ...]
    place: dict[bytes, int]
    """Of each name in `names`."""
    hardware: tuple[bytes, ...]
    template: bytes
    """For the % operator, with one number for each of `names`."""


@frozen
class HostMemory:
    """What a container's file takes from the host's, equal as long as none of it has changed.

    What a kernel does not tell is 0.
    """

    layout: _Layout
    total_kb: int
    swap_total_bytes: int
    huge_pages: int
    huge_page_kb: int
    """The default size."""
    hardware: tuple[int, ...]
    """One number for each of the layout's names of hardware."""
    mlocked_kb: int
    """It changes at any time, and says something to who has unevictable memory only."""

    _compared = attrgetter(
        *("layout", "total_kb", "swap_total_bytes", "huge_pages", "huge_page_kb", "hardware")
    )


_NUMBERS_AND_BLANKS = b"0123456789 "


def what_there_is(host_meminfo: bytes) -> bytes:
    """Return those parts that tell how much memory, swap space and huge pages the host has.

    Found without taking the text apart; what stands beside them may be in it as well.
    """
    swap_at = host_meminfo.find(b"\nSwapTotal:")
    huge_at = host_meminfo.find(b"\nHugePages_Total:")
    return b"".join(
        (
            host_meminfo[: host_meminfo.find(b"\n")],
            host_meminfo[swap_at : host_meminfo.find(b"\n", swap_at + 1)] if swap_at >= 0 else b"",
            host_meminfo[huge_at:] if huge_at >= 0 else b"",
        )
    )


def parse(host_meminfo: bytes) -> HostMemory:
    """Return what is needed of the host's file.

    Most of the time is in the text. So the numbers are converted only where they are needed, and
    the layout is worked out once for all texts with the same names and units.

    Raises ValueError where the file is not lines of `Name: number`, or has no MemTotal.
    """
    words = host_meminfo.replace(b" kB\n", b"\n").split()
    names, numbers = tuple(words[::2]), words[1::2]
    layout = _layout(names, host_meminfo.translate(None, _NUMBERS_AND_BLANKS))
    if len(numbers) != len(names):
        raise ValueError("not a meminfo file: the last line has no number")
    place = layout.place

    def number(name: bytes) -> int:
        return unsigned(numbers[place[name]]) if name in place else 0

    if b"MemTotal" not in place:
        raise ValueError("not a meminfo file: no MemTotal")
    return HostMemory(
        layout=layout,
        total_kb=number(b"MemTotal"),
        swap_total_bytes=number(b"SwapTotal") * KIB,
        huge_pages=number(b"HugePages_Total"),
        huge_page_kb=number(b"Hugepagesize"),
        hardware=tuple([number(name) for name in layout.hardware]),
        mlocked_kb=number(b"Mlocked"),
    )


@lru_cache(maxsize=8)
def _layout(labels: tuple[bytes, ...], shape: bytes) -> _Layout:
    """Return the layout of a file with the names `labels`, each with its colon.

    `shape` is the file without digits and blanks, which tells what has a unit.
    Raises ValueError where the two are not those of a meminfo file.
    """
    lines = shape.splitlines()
    if len(lines) != len(labels):
        raise ValueError("not a meminfo file: a line is not one name and one number")
    template: list[bytes] = []
    for label, line in zip(labels, lines, strict=True):
        unit = {b"": b"", b"kB": b" kB"}.get(line.partition(b":")[2])
        if unit is None or label.count(b":") != 1 or not label.endswith(b":") or b"%" in label:
            raise ValueError(f"not a line of meminfo: {line!r}")
        # The kernel pads names to 16 columns and numbers to 8; longer names to 19, numbers to 5.
        form = b"%-15s %%8d%s\n" if len(label) < 16 else b"%-18s %%5d%s\n"
        template.append(form % (label, unit))
    names = tuple(label[:-1] for label in labels)
    hardware = tuple(name for name in names if name in _HARDWARE)
    place = {name: place for place, name in enumerate(names)}
    return _Layout(names, place, hardware, b"".join(template))
