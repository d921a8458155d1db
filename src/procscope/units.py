"""Sizes and CPU counts as people write them on a command line, in Docker's grammar.

Sizes follow `RAMInBytes` of github.com/docker/go-units (powers of 1024), CPU counts `--cpus` of
the Docker command line. Exponents and signs, which Go's number parser lets through, are refused.
"""

from __future__ import annotations

import re
from fractions import Fraction

from procscope.errors import ExitCode, ProcscopeError

CPU_PERIOD_USEC = 100_000
"""The period that a CPU quota is given for; the kernel's own default."""

MIN_CPU_QUOTA_USEC = 1_000
"""The kernel refuses a smaller quota (`min_cfs_quota_period` in `kernel/sched/core.c`)."""

MAX_SIZE_BYTES = 2**63 - 1
"""The largest number that Docker, and a cgroup's limit file, take."""

_SIZE = re.compile(r"(\d+\.?\d*|\.\d+) ?(?:([kmgtp])(?:i?b)?|b)?", re.ASCII | re.IGNORECASE)
_DECIMAL = re.compile(r"\d+\.?\d*|\.\d+", re.ASCII)
_MAX_DIGITS = 64
_UNITS = "kmgtp"
_NANO = 10**9


def parse_size(text: str) -> int:
    """Return the bytes of a size such as `256m`, `1.5g`, `512KiB`, `1024` or `64b`.

    Units are powers of 1024; a fraction of a byte is cut off. Raises ProcscopeError.
    """
    match = _SIZE.fullmatch(text) if len(text) <= _MAX_DIGITS else None
    if match is None:
        raise ProcscopeError(
            f"not a size: {shorten(text)!r}",
            hint="use a number and a unit b, k, m, g, t or p (powers of 1024), as in 256m or 1.5g",
            exit_code=ExitCode.USAGE,
        )
    number, unit = match[1], match[2]
    exponent = _UNITS.index(unit.lower()) + 1 if unit else 0
    size_bytes = int(Fraction(number) * 1024**exponent)
    if size_bytes > MAX_SIZE_BYTES:
        raise ProcscopeError(
            f"size too large: {shorten(text)!r}",
            hint="the kernel counts up to 8 EiB",
            exit_code=ExitCode.USAGE,
        )
    return size_bytes


def parse_cpus(text: str) -> int:
    """Return the CPU quota in microseconds per CPU_PERIOD_USEC for a count such as `1.5`.

    Raises ProcscopeError for what is no decimal number or is finer than a billionth of a CPU.
    Whether the host has so many CPUs is not known here.
    """
    if len(text) > _MAX_DIGITS or _DECIMAL.fullmatch(text) is None:
        raise ProcscopeError(
            f"not a number of CPUs: {shorten(text)!r}",
            hint="use a decimal number, as in 2 or 1.5",
            exit_code=ExitCode.USAGE,
        )
    nano_cpus = Fraction(text) * _NANO
    if nano_cpus.denominator != 1:
        raise ProcscopeError(
            f"number of CPUs too precise: {shorten(text)!r}",
            hint="use at most nine digits after the point",
            exit_code=ExitCode.USAGE,
        )
    return int(nano_cpus * CPU_PERIOD_USEC / _NANO)


def format_size(size_bytes: int) -> str:
    """Return a size for a message: in the largest unit that keeps it at 1 or more."""
    if size_bytes < 1024:
        return f"{size_bytes} B"
    exponent = min((size_bytes.bit_length() - 1) // 10, len(_UNITS))
    number = f"{size_bytes / 1024**exponent:.1f}".removesuffix(".0")
    return f"{number} {_UNITS[exponent - 1].upper()}iB"


def shorten(text: str, length: int = 40) -> str:
    """Return `text`, cut for a message where it is long."""
    return text if len(text) <= length else text[: length - 1] + "…"
