"""Proves: every parser reads what the kernel writes, and nothing else ends a read by surprise."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procscope.cgroup import parsers
from procscope.cgroup.model import CpuQuota, IoCounters, Missing

RAISING: list[Callable[[bytes], object]] = [
    parsers.parse_number,
    parsers.parse_limit,
    parsers.parse_cpu_max,
    parsers.parse_cpuset,
    parsers.parse_numbers,
]
SKIPPING: list[Callable[[bytes], object]] = [
    parsers.parse_flat_keyed,
    parsers.parse_nested_keyed,
    parsers.parse_usage_all,
    parsers.parse_io_stat,
    parsers.parse_blkio,
    lambda content: list(parsers.parse_pids(content)),
]
KERNEL_LIKE = st.lists(
    st.sampled_from(
        [
            *("max", "-1", "8:0", "8:16 ", "Read", "Total 5", "rbytes=1", "dios=x", "=", ":", "\n"),
            *(" ", "cpu user system\n", "0 1 2\n", "0-3", "3-0", ","),
        ]
    )
    | st.integers().map(str)
).map(lambda words: " ".join(words).encode())
GARBAGE = st.binary() | KERNEL_LIKE | st.just(b"9" * 5000) | st.just("٣ ٤\n".encode())


@pytest.mark.parametrize("parse", SKIPPING)
@settings(deadline=None)
@given(content=GARBAGE)
def test_files_of_lines_skip_garbage(parse: Callable[[bytes], object], content: bytes) -> None:
    parse(content)


@pytest.mark.parametrize("parse", RAISING)
@settings(deadline=None)
@given(content=GARBAGE)
def test_single_values_raise_value_error_only(
    parse: Callable[[bytes], object], content: bytes
) -> None:
    try:
        parse(content)
    except ValueError:
        return


keys = st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyz_."), min_size=1)
u64 = st.integers(0, (1 << 64) - 1)


@settings(deadline=None)
@given(values=st.dictionaries(keys, u64))
def test_flat_keyed_round_trip(values: dict[str, int]) -> None:
    text = "".join(f"{key} {value}\n" for key, value in values.items())
    assert parsers.parse_flat_keyed(text.encode()) == values


@settings(deadline=None)
@given(values=st.dictionaries(keys, st.dictionaries(keys, u64)))
def test_nested_keyed_round_trip(values: dict[str, dict[str, int]]) -> None:
    text = "".join(
        " ".join([name, *(f"{key}={value}" for key, value in inner.items())]) + "\n"
        for name, inner in values.items()
    )
    assert parsers.parse_nested_keyed(text.encode()) == values


@settings(deadline=None)
@given(quota=st.integers(1, 1 << 40), period=st.integers(1, 1 << 20))
def test_cpu_max_round_trip(quota: int, period: int) -> None:
    assert parsers.parse_cpu_max(f"{quota} {period}\n".encode()) == CpuQuota(quota, period)


@settings(deadline=None)
@given(value=st.integers(0, parsers.LARGEST_LIMIT - 1))
def test_limit_round_trip(value: int) -> None:
    assert parsers.parse_limit(f"{value}\n".encode()) == value


@settings(deadline=None)
@given(usage=st.dictionaries(st.integers(0, 4095), st.tuples(u64, u64)))
def test_usage_all_round_trip(usage: dict[int, tuple[int, int]]) -> None:
    text = "cpu user system\n" + "".join(f"{cpu} {u} {s}\n" for cpu, (u, s) in usage.items())
    assert parsers.parse_usage_all(text.encode()) == usage


def test_one_key_does_not_swallow_another() -> None:
    stat = parsers.parse_flat_keyed(b"file 1\nfile_mapped 2\ntotal_rss 3\ntotal_rss_huge 4\n")
    assert stat == {"file": 1, "file_mapped": 2, "total_rss": 3, "total_rss_huge": 4}


@pytest.mark.parametrize(
    "text",
    [b"max\n", b"-1\n", b"9223372036854771712\n", b"9223372036854710272\n", b"1152921504606846976"],
)
def test_the_ways_to_say_unlimited(text: bytes) -> None:
    """The two long numbers are PAGE_COUNTER_MAX with pages of 4 KiB and of 64 KiB."""
    assert parsers.parse_limit(text) is Missing.UNLIMITED


@pytest.mark.parametrize("text", [b"", b"100000\n", b"0 100000", b"5 0", b"max x", b"1 2 3"])
def test_what_is_no_cpu_max(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a (cpu\.max|quota)"):
        parsers.parse_cpu_max(text)


def test_cpu_max_without_a_limit() -> None:
    assert parsers.parse_cpu_max(b"max 100000\n") is Missing.UNLIMITED


def test_io_stat_lines_may_lack_keys_and_line_ends() -> None:
    """`7:7 7:6 8:0 …` on one line is what some kernels write for devices without numbers."""
    text = (
        b"7:7 7:6 8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n"
        b"259:1 rbytes=7\n"
        b"8:16 rbytes=0 wbytes=0 rios=0 wios=0 dbytes=0 dios=0\n"
        b"8:32 cost.vrate=100.00 wios=x\n"
        b"253:0 "
    )
    assert parsers.parse_io_stat(text) == {
        (8, 0): IoCounters(1, 2, 5, 3, 4, 6),
        (259, 1): IoCounters(read_bytes=7),
    }


def test_blkio_totals_and_unknown_devices_are_left_out() -> None:
    text = b"8:0 Read 1\n8:0 Write 2\n8:0 Discard 0\n8:0 Total 3\n(unknown) Read 9\nTotal 3\n"
    assert parsers.parse_blkio(text) == {
        (8, 0): {"Read": 1, "Write": 2, "Discard": 0, "Total": 3},
    }


def test_pids_of_another_namespace_are_left_out() -> None:
    assert list(parsers.parse_pids(b"0\n12\n0\n7\n")) == [12, 7]
