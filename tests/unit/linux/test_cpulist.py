"""cpulists and cpumasks: what the kernel writes, and nothing else, is understood."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.ids import CpuId
from procscope.linux.cpulist import cut_cpumask, format_cpulist, parse_cpulist

_CPUS = st.frozensets(st.integers(0, 300).map(CpuId))


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("", ()),
        ("\n", ()),
        ("0\n", (0,)),
        ("0-3,8\n", (0, 1, 2, 3, 8)),
        ("8,0-1", (0, 1, 8)),
        ("1,1-2", (1, 2)),
    ],
)
def test_a_cpulist_is_read(text: str, cpus: tuple[int, ...]) -> None:
    assert parse_cpulist(text) == cpus


@pytest.mark.parametrize(
    "text",
    [
        ",",
        "0,",
        ",0",
        "0,,1",
        "-",
        "0-",
        "-1",
        "3-1",
        "a",
        "0x1",
        "1_0",
        "²",
        "٣",
        "0 1",
        "0-1-2",
        "65536",
        "0-99999999999999",
        "9" * 5000,
    ],
)
def test_what_is_no_cpulist_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a cpulist|4300"):
        parse_cpulist(text)


@given(st.text())
def test_any_text_is_a_sorted_cpulist_or_a_value_error(text: str) -> None:
    try:
        cpus = parse_cpulist(text)
    except ValueError:
        return
    assert list(cpus) == sorted(set(cpus))


@given(_CPUS)
def test_what_is_written_is_read_back(cpus: frozenset[CpuId]) -> None:
    assert parse_cpulist(format_cpulist(cpus)) == tuple(sorted(cpus))


@given(_CPUS)
def test_a_written_cpulist_joins_neighbours(cpus: frozenset[CpuId]) -> None:
    """The kernel never writes `0,1` for `0-1`: no range ends where the next one begins."""
    ranges = [part.split("-") for part in format_cpulist(cpus).split(",") if part]
    for before, after in itertools.pairwise(ranges):
        assert int(before[-1]) + 1 < int(after[0])


def _mask(bits: int, words: int, first_digits: int = 8) -> str:
    """Write a cpumask as the kernel's `%*pb`: 32 bits a word, the first as narrow as it may be."""
    parts = [f"{bits >> 32 * index & 0xFFFFFFFF:08x}" for index in reversed(range(words))]
    parts[0] = parts[0][8 - first_digits :]
    return ",".join(parts)


@given(st.integers(1, 5), st.data())
def test_a_cut_mask_is_as_wide_and_has_the_visible_bits(words: int, data: st.DataObject) -> None:
    bits = data.draw(st.integers(0, 2 ** (32 * words) - 1))
    visible = data.draw(_CPUS)
    wanted = bits & sum(1 << cpu for cpu in visible)
    assert cut_cpumask(_mask(bits, words) + "\n", visible) == _mask(wanted, words)


def test_a_narrow_first_word_stays_narrow() -> None:
    assert cut_cpumask("f", [CpuId(1)]) == "2"
    assert cut_cpumask("3,ffffffff\n", [CpuId(0), CpuId(33)]) == "2,00000001"


@pytest.mark.parametrize("text", ["", ",", "g", "0x1", "-1", "+1", "1_0", "123456789", "1,", "f f"])
def test_what_is_no_mask_is_a_value_error(text: str) -> None:
    """`int(text, 16)` alone takes signs, prefixes and underscores."""
    with pytest.raises(ValueError, match="not a cpumask"):
        cut_cpumask(text, [CpuId(0)])


@given(st.text(), _CPUS)
def test_any_text_is_a_mask_or_a_value_error(text: str, visible: frozenset[CpuId]) -> None:
    try:
        cut = cut_cpumask(text, visible)
    except ValueError:
        return
    assert len(cut) == len(text.strip())
