"""The kernel's cpulist (`0-3,8`) and cpumask (`ff,00000001`) texts.

Formats of `%*pbl` and `%*pb` in the kernel's `lib/vsprintf.c`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from procscope.ids import CpuId

_BITS_PER_WORD = 32
_WORD = re.compile(r"[0-9a-fA-F]{1,8}")
_MAX_CPUS = 65536
"""More than any kernel can be built for; a larger number is garbage, not a CPU."""


def parse_cpulist(text: str) -> tuple[CpuId, ...]:
    """Return the sorted CPU ids of a cpulist; an empty text is an empty tuple.

    Raises ValueError where `text` is no cpulist.
    """
    cpus: set[int] = set()
    for part in text.strip().split(","):
        if not part and not text.strip():
            continue
        first, dash, last = part.partition("-")
        if not (first.isascii() and first.isdigit()):
            raise ValueError(f"not a cpulist: {text!r}")
        if dash and not (last.isascii() and last.isdigit()):
            raise ValueError(f"not a cpulist: {text!r}")
        start, end = int(first), int(last or first)
        if start > end or end >= _MAX_CPUS:
            raise ValueError(f"not a cpulist: {text!r}")
        cpus.update(range(start, end + 1))
    return tuple(CpuId(cpu) for cpu in sorted(cpus))


def format_cpulist(cpus: Iterable[CpuId]) -> str:
    """Return the cpulist of `cpus`, ranges joined, without a line end."""
    ranges: list[tuple[int, int]] = []
    for cpu in sorted(set(cpus)):
        if ranges and ranges[-1][1] == cpu - 1:
            ranges[-1] = (ranges[-1][0], cpu)
        else:
            ranges.append((cpu, cpu))
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)


def cut_cpumask(mask: str, visible: Collection[CpuId]) -> str:
    """Return the cpumask `mask` with only the bits of `visible` left, as wide as it was.

    Raises ValueError where `mask` is no cpumask.
    """
    words = mask.strip().split(",")
    if not all(_WORD.fullmatch(word) for word in words):
        raise ValueError(f"not a cpumask: {mask!r}")
    value = 0
    for word in words:
        value = value << _BITS_PER_WORD | int(word, 16)
    value &= sum(1 << cpu for cpu in visible)
    cut: list[str] = []
    for index, word in enumerate(reversed(words)):
        bits = value >> (index * _BITS_PER_WORD) & 0xFFFFFFFF
        cut.append(f"{bits:0{len(word)}x}")
    return ",".join(reversed(cut))
