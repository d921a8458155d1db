"""The `swaps` view: the kernel's columns, the same numbers as `meminfo`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.cgroup.model import Missing, SwapV2
from procscope.views import meminfo, swaps
from procscope.views.swap import SwapSpace, swap_space
from tests.unit.views.recorded import MIB, hosts_with, memory, read

HEADER = b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"


@pytest.mark.parametrize("host", hosts_with("swaps"))
def test_one_line_stands_for_all_swap_space(host: str) -> None:
    view = swaps.render(read(host, "swaps"), SwapSpace(100 * MIB, 10 * MIB))
    line = b"none" + b" " * 36 + b"virtual\t\t102400\t\t10240\t\t-2\n"
    assert view == HEADER + line


@pytest.mark.parametrize("host", hosts_with("swaps"))
def test_columns_stand_where_the_kernel_puts_them(host: str) -> None:
    """The recorded line of a real swap device has its fields at the same screen columns."""
    device_lines = read(host, "swaps").splitlines()[1:]
    for line in device_lines:
        _, _, size, used, _ = line.split()
        space = SwapSpace(int(size) * 1024, int(used) * 1024)
        ours = swaps.render(HEADER, space).splitlines()[1]
        assert _starts(ours) == _starts(line)


def _starts(line: bytes) -> list[int]:
    text = line.decode().expandtabs(8)
    return [i for i, c in enumerate(text) if c != " " and (i == 0 or text[i - 1] == " ")]


def test_wide_numbers_take_one_tab() -> None:
    view = swaps.render(HEADER, SwapSpace(10_000_000 * 1024, 9_999_999 * 1024))
    assert view.endswith(b"virtual\t\t10000000\t9999999\t\t-2\n")


@pytest.mark.parametrize("space", [SwapSpace(0, 0), SwapSpace(1023, 1023)])
def test_without_swap_space_there_is_the_header_only(space: SwapSpace) -> None:
    assert swaps.render(HEADER, space) == HEADER


@pytest.mark.parametrize("garbage", [b"", b"\n", b"Filenames\n", b"\xff\x00"])
def test_a_header_that_is_not_the_kernels_is_replaced(garbage: bytes) -> None:
    assert swaps.render(garbage, SwapSpace(0, 0)) == HEADER


@given(
    limit=st.integers(0, 1 << 40) | st.just(Missing.UNLIMITED),
    used_bytes=st.integers(0, 1 << 40),
    host=st.sampled_from(hosts_with("meminfo")),
)
def test_same_total_and_used_as_meminfo(limit: int | Missing, used_bytes: int, host: str) -> None:
    swap = SwapV2(limit if isinstance(limit, int) else Missing.UNLIMITED, used_bytes)
    host_memory = meminfo.parse(read(host, "meminfo"))
    view = meminfo.render(host_memory, memory(MIB, swap=swap), Missing.ABSENT, 50)
    fields = {line.split()[0]: int(line.split()[1]) for line in view.splitlines()}
    space = swap_space(swap, host_memory.swap_total_bytes)
    lines = swaps.render(HEADER, space).splitlines()[1:]
    shown = [tuple(int(number) for number in line.split()[2:4]) for line in lines]
    total, free = fields[b"SwapTotal:"], fields[b"SwapFree:"]
    assert shown == ([(total, total - free)] if total else [])
