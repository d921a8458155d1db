"""The `meminfo` view: every field's rule, the clamps, the kernel's exact layout."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.cgroup.model import (
    Hugetlb,
    Limit,
    Memory,
    MemoryLimit,
    MemoryStat,
    Missing,
    Swap,
    SwapV1,
    SwapV2,
)
from procscope.values import names_of, replace
from procscope.views import meminfo
from procscope.views.swap import swap_space
from tests.unit.views.recorded import MIB, hosts_with, memory, read

RECORDED = hosts_with("meminfo")
HOST = b"""\
MemTotal:        8000000 kB
MemFree:         1000000 kB
MemAvailable:    6000000 kB
Buffers:          300000 kB
Mlocked:              20 kB
Unevictable:       40000 kB
SwapTotal:       2000000 kB
SwapFree:        1500000 kB
CommitLimit:     1234567 kB
VmallocTotal:   34359738367 kB
HardwareCorrupted:     4 kB
FilePmdMapped:      2048 kB
CmaTotal:         524288 kB
CmaFree:          100000 kB
Unaccepted:          512 kB
Balloon:            1024 kB
GPUActive:         99999 kB
GPUReclaim:        11111 kB
FromTheFuture:    123456 kB
CountedLater:        77
HugePages_Total:      10
HugePages_Free:        8
HugePages_Rsvd:        1
HugePages_Surp:        1
Hugepagesize:       2048 kB
Hugetlb:           20480 kB
DirectMap4k:      100000 kB
DirectMap1G:     7900000 kB
"""

AMOUNTS = st.integers(0, 1 << 45)
STATS = st.builds(MemoryStat, **dict.fromkeys(names_of(MemoryStat), AMOUNTS))
LIMITS = AMOUNTS | st.just(Missing.UNLIMITED)
SWAPS = (
    st.builds(SwapV2, LIMITS, AMOUNTS)
    | st.builds(SwapV1, LIMITS, LIMITS, AMOUNTS, AMOUNTS, st.sampled_from([0, 1, 60]))
    | st.sampled_from([Missing.ABSENT, Missing.UNREADABLE])
)
MEMORIES = st.builds(Memory, st.builds(MemoryLimit, LIMITS, AMOUNTS), STATS, SWAPS)


def parsed(content: bytes) -> dict[str, int]:
    lines = [line.split() for line in content.decode().splitlines()]
    return {words[0].removesuffix(":"): int(words[1]) for words in lines}


def rendered(
    container: Memory,
    host: bytes = HOST,
    *,
    hugetlb: Hugetlb | Literal[Missing.ABSENT] = Missing.ABSENT,
    overcommit_ratio: int = 50,
) -> dict[str, int]:
    return parsed(meminfo.render(meminfo.parse(host), container, hugetlb, overcommit_ratio))


@pytest.mark.parametrize("host", RECORDED)
def test_layout_reproduces_the_host_file_to_the_byte(host: str) -> None:
    """Filled with the host's own numbers, the layout gives the kernel's own text."""
    content = read(host, "meminfo")
    numbers = tuple(int(line.split()[1]) for line in content.splitlines())
    assert meminfo.parse(content).layout.template % numbers == content


@pytest.mark.parametrize("host", RECORDED)
def test_names_order_and_units_are_the_host_files(host: str) -> None:
    content = read(host, "meminfo")
    view = meminfo.render(meminfo.parse(content), memory(256 * MIB), Missing.ABSENT, 50)
    assert [line.split()[::2] for line in view.splitlines()] == [
        line.split()[::2] for line in content.splitlines()
    ]


@pytest.mark.parametrize("host", RECORDED)
def test_limit_of_256_mib(host: str) -> None:
    stat = MemoryStat(
        anon_bytes=100 * MIB,
        file_bytes=50 * MIB,
        active_file_bytes=8 * MIB,
        inactive_file_bytes=30 * MIB,
        slab_reclaimable_bytes=2 * MIB,
    )
    view = rendered(memory(256 * MIB, 160 * MIB, stat), read(host, "meminfo"))
    assert view["MemTotal"] == 262144
    assert view["MemFree"] == 96 * 1024
    assert view["MemAvailable"] == 136 * 1024
    assert view["Cached"] == 50 * 1024
    assert view["AnonPages"] == 100 * 1024
    assert view["Buffers"] == 0


def test_each_counter_of_the_cgroup_has_its_own_field() -> None:
    """A value of its own for each: none is swallowed by one with a similar name."""
    own = MemoryStat(*(MIB * (index + 1) for index in range(len(names_of(MemoryStat)))))
    host = read("6.18-x86_64", "meminfo") + b"LowTotal:  1 kB\nLowFree:  1 kB\n"
    view = rendered(memory(4096 * MIB, 1024 * MIB, own), host)
    expected = {
        "Cached": own.file_bytes,
        "SwapCached": own.swapcached_bytes,
        "Active": own.active_anon_bytes + own.active_file_bytes,
        "Inactive": own.inactive_anon_bytes + own.inactive_file_bytes,
        "Active(anon)": own.active_anon_bytes,
        "Inactive(anon)": own.inactive_anon_bytes,
        "Active(file)": own.active_file_bytes,
        "Inactive(file)": own.inactive_file_bytes,
        "Unevictable": own.unevictable_bytes,
        "AnonPages": own.anon_bytes,
        "Mapped": own.file_mapped_bytes,
        "Shmem": own.shmem_bytes,
        "Dirty": own.file_dirty_bytes,
        "Writeback": own.file_writeback_bytes,
        "KReclaimable": own.slab_reclaimable_bytes,
        "SReclaimable": own.slab_reclaimable_bytes,
        "SUnreclaim": own.slab_unreclaimable_bytes,
        "Slab": own.slab_reclaimable_bytes + own.slab_unreclaimable_bytes,
        "KernelStack": own.kernel_stack_bytes,
        "PageTables": own.pagetables_bytes,
        "SecPageTables": own.sec_pagetables_bytes,
        "Percpu": own.percpu_bytes,
        "VmallocUsed": own.vmalloc_bytes,
        "AnonHugePages": own.anon_thp_bytes,
        "ShmemHugePages": own.shmem_thp_bytes,
        "FileHugePages": own.file_thp_bytes,
        "Zswap": own.zswap_bytes,
        "Zswapped": own.zswapped_bytes,
        "LowTotal": 4096 * MIB,
        "LowFree": 3072 * MIB,
        "Committed_AS": own.anon_bytes + own.shmem_bytes,
        "CommitLimit": 2048 * MIB,
    }
    assert {name: view[name] * 1024 for name in expected} == expected


def test_hardware_passes_and_the_use_of_the_whole_host_is_0() -> None:
    view = rendered(memory(256 * MIB))
    kept = {"HardwareCorrupted": 4, "Hugepagesize": 2048, "VmallocTotal": 34359738367}
    kept |= {"DirectMap4k": 100000, "DirectMap1G": 7900000}
    assert {name: view[name] for name in kept} == kept
    for name in (
        *("Buffers", "FilePmdMapped", "CmaTotal", "CmaFree", "Unaccepted", "Balloon"),
        *("GPUActive", "GPUReclaim", "FromTheFuture", "CountedLater", "HugePages_Total"),
    ):
        assert view[name] == 0, name


def test_without_a_limit_the_total_is_the_hosts_and_the_usage_its_own() -> None:
    for limit in (Missing.UNLIMITED, 1 << 60):
        view = rendered(memory(limit, 100 * MIB))
        assert view["MemTotal"] == 8000000
        assert view["MemFree"] == 8000000 - 100 * 1024


def test_total_is_rounded_down_to_kb() -> None:
    assert rendered(memory(10 * 1024 + 1023))["MemTotal"] == 10


def test_mlocked_is_bounded_by_the_host_and_by_unevictable() -> None:
    assert rendered(memory(MIB, stat=MemoryStat(unevictable_bytes=8 << 10)))["Mlocked"] == 8
    assert rendered(memory(MIB, stat=MemoryStat(unevictable_bytes=80 << 10)))["Mlocked"] == 20


def test_huge_pages_follow_the_controller_bounded_by_the_host() -> None:
    def pages(limit: Limit, usage_bytes: int) -> tuple[int, int, int]:
        view = rendered(memory(MIB), hugetlb=Hugetlb(limit, usage_bytes))
        return view["HugePages_Total"], view["HugePages_Free"], view["Hugetlb"]

    assert pages(Missing.UNLIMITED, 0) == (10, 10, 20480)
    assert pages(8 * MIB, 2 * MIB) == (4, 3, 8192)
    assert pages(8 * MIB, 3 * MIB) == (4, 2, 8192), "a page is used as soon as a part of it is"
    assert pages(0, 0) == (0, 0, 0)
    assert pages(1 << 50, 1 << 50) == (10, 0, 20480)


@pytest.mark.parametrize(
    ("swap", "total", "used"),
    [
        (SwapV2(Missing.UNLIMITED, 5 * MIB), 2000000, 5 * 1024),
        (SwapV2(100 * MIB, 30 * MIB), 100 * 1024, 30 * 1024),
        (SwapV2(100 * MIB, 300 * MIB), 100 * 1024, 100 * 1024),
        (SwapV2(0, 0), 0, 0),
        (SwapV1(512 * MIB, 256 * MIB, 300 * MIB, 200 * MIB, 60), 256 * 1024, 100 * 1024),
        (SwapV1(512 * MIB, 256 * MIB, 300 * MIB, 290 * MIB, 0), 10 * 1024, 10 * 1024),
        (SwapV1(256 * MIB, 256 * MIB, 100 * MIB, 100 * MIB, 60), 0, 0),
        (SwapV1(Missing.UNLIMITED, 256 * MIB, 9 * MIB, 8 * MIB, 60), 2000000, 1024),
        (SwapV1(512 * MIB, Missing.UNLIMITED, 9 * MIB, 8 * MIB, 60), 1024, 1024),
        (SwapV1(512 * MIB, 256 * MIB, 9 * MIB, 10 * MIB, Missing.ABSENT), 256 * 1024, 0),
        (Missing.ABSENT, 0, 0),
        (Missing.UNREADABLE, 0, 0),
    ],
)
def test_swap(swap: Swap, total: int, used: int) -> None:
    view = rendered(memory(256 * MIB, swap=swap))
    assert (view["SwapTotal"], view["SwapTotal"] - view["SwapFree"]) == (total, used)
    space = swap_space(swap, meminfo.parse(HOST).swap_total_bytes)
    assert (space.total_bytes // 1024, space.used_bytes // 1024) == (total, used)


def test_commit_limit_follows_the_ratio() -> None:
    view = rendered(memory(100 * MIB, swap=SwapV2(10 * MIB, 0)), overcommit_ratio=80)
    assert view["CommitLimit"] == 90 * 1024


@given(container=MEMORIES, host=st.sampled_from(RECORDED), ratio=st.integers(0, 200))
def test_no_amount_is_negative_or_above_the_total(container: Memory, host: str, ratio: int) -> None:
    content = read(host, "meminfo")
    view = rendered(container, content, overcommit_ratio=ratio)
    total = view["MemTotal"]
    assert total <= parsed(content)["MemTotal"]
    beside = {"SwapTotal", "SwapFree", "CommitLimit", "Committed_AS"}
    beside |= {name.decode() for name in meminfo._HARDWARE}
    for name, value in view.items():
        assert value >= 0, name
        assert value <= total or name in beside, name
    assert view["SwapFree"] <= view["SwapTotal"] <= parsed(content)["SwapTotal"]
    assert view["Active"] == view["Active(anon)"] + view["Active(file)"]
    assert view["Inactive"] == view["Inactive(anon)"] + view["Inactive(file)"]
    assert view["Slab"] == view["SReclaimable"] + view["SUnreclaim"]
    assert view["MemFree"] <= view["MemAvailable"]
    assert view["Committed_AS"] <= total + view["SwapTotal"]


GARBAGE = st.binary(max_size=80) | st.lists(
    st.sampled_from([b"MemTotal:", b"7 kB", b" ", b"\n", b"%s:", b"a b:", b"-1", b":", b"%(x)"])
).map(b"".join)


@given(garbage=GARBAGE, after=st.booleans())
def test_garbage_is_a_value_error_or_a_whole_file(garbage: bytes, after: bool) -> None:
    content = HOST + garbage if after else garbage
    try:
        view = meminfo.render(meminfo.parse(content), memory(256 * MIB), Missing.ABSENT, 50)
    except ValueError:
        return
    assert b"MemTotal:" in view
    assert view.count(b"\n") == len(view.splitlines())


def test_two_hosts_are_equal_where_all_but_the_locked_memory_is() -> None:
    one = meminfo.parse(b"MemTotal: 4096 kB\nMlocked: 4 kB\n")
    for name in names_of(meminfo.HostMemory):
        assert (replace(one, **{name: None}) == one) == (name == "mlocked_kb"), name
