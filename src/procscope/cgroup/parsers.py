"""Texts of cgroup files: pure functions from bytes to numbers.

The formats are those of the kernel's `Documentation/admin-guide/cgroup-v2.rst` ("Interface
Files") and `admin-guide/cgroup-v1/`. Single values raise ValueError where the text is no such
value; in files of many lines what is no number is skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from procscope.cgroup.model import (
    CpuQuota,
    DeviceNumber,
    IoCounters,
    Limit,
    Missing,
    Unlimited,
)
from procscope.ids import CpuId, Pid
from procscope.linux.cpulist import parse_cpulist

LARGEST_LIMIT = 1 << 60
"""At or above it a limit is none. v1 writes "no limit" as PAGE_COUNTER_MAX pages, which is
9223372036854771712 with 4 KiB pages and another number with other pages."""

_U64_DIGITS = 20
_NUMBER = re.compile(rf"[0-9]{{1,{_U64_DIGITS}}}")
_DEVICE = re.compile(r"([0-9]{1,10}):([0-9]{1,10})")

_IO_STAT_FIELDS = {
    "rbytes": "read_bytes",
    "wbytes": "write_bytes",
    "dbytes": "discard_bytes",
    "rios": "reads",
    "wios": "writes",
    "dios": "discards",
}


def parse_number(content: bytes) -> int:
    """Return the one unsigned number of `content`. Raises ValueError."""
    text = content.decode("ascii", "replace").strip()
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"not a number: {text[:60]!r}")
    return int(text)


def digits(text: bytes) -> int | None:
    """Return the number that `text` is, digits only; None where it is no such number."""
    return int(text) if text.isdigit() and len(text) <= _U64_DIGITS else None


def parse_limit(content: bytes) -> Limit:
    """Return a limit of v1 or v2: `max`, -1 and what nobody can reach are UNLIMITED.

    Raises ValueError.
    """
    if content.strip() in (b"max", b"-1"):
        return Missing.UNLIMITED
    value = parse_number(content)
    return Missing.UNLIMITED if value >= LARGEST_LIMIT else value


def parse_flat_keyed(content: bytes) -> dict[str, int]:
    """Return `KEY VALUE` lines; other lines are skipped."""
    values: dict[str, int] = {}
    for line in content.decode("ascii", "replace").split("\n"):
        key, _, value = line.partition(" ")
        if value.isdigit() and len(value) <= _U64_DIGITS:
            values[key] = int(value)
    return values


def parse_nested_keyed(content: bytes) -> dict[str, dict[str, int]]:
    """Return `NAME KEY=VALUE KEY=VALUE…` lines; values that are no numbers are skipped.

    A name ends where the next one starts, not at the line's end: some kernels (5.15 is one) leave
    out the line end after a device of which `io.stat` has nothing to tell.
    """
    nested: dict[str, dict[str, int]] = {}
    for line in content.decode("ascii", "replace").splitlines():
        values: dict[str, int] | None = None
        for word in line.split():
            key, equals, value = word.partition("=")
            if not equals:
                values = nested.setdefault(word, {})
            elif values is not None and _NUMBER.fullmatch(value):
                values[key] = int(value)
    return nested


def parse_cpu_max(content: bytes) -> CpuQuota | Unlimited:
    """Return `cpu.max`: `QUOTA PERIOD` or `max PERIOD`. Raises ValueError."""
    words = content.decode("ascii", "replace").split()
    if not 1 <= len(words) <= 2 or not all(map(_NUMBER.fullmatch, words[1:])):
        raise ValueError(f"not a cpu.max: {content[:60]!r}")
    if words[0] == "max":
        return Missing.UNLIMITED
    if len(words) != 2 or not _NUMBER.fullmatch(words[0]):
        raise ValueError(f"not a cpu.max: {content[:60]!r}")
    return make_quota(int(words[0]), int(words[1]))


def make_quota(quota_usec: int, period_usec: int) -> CpuQuota:
    """Return the quota. Raises ValueError where one of the two is 0: the kernel allows neither."""
    if quota_usec <= 0 or period_usec <= 0:
        raise ValueError(f"not a quota: {quota_usec} in {period_usec} us")
    return CpuQuota(quota_usec=quota_usec, period_usec=period_usec)


def parse_cpuset(content: bytes) -> tuple[CpuId, ...]:
    """Return the CPUs of a cpuset file; an empty one gives none. Raises ValueError."""
    return parse_cpulist(content.decode("ascii", "replace"))


def parse_usage_all(content: bytes) -> dict[CpuId, tuple[int, int]]:
    """Return `cpuacct.usage_all`: a header, then `CPU USER SYSTEM` in ns for each possible CPU.

    The values are (user, system). Empty where the header names other columns.
    """
    lines = content.decode("ascii", "replace").splitlines()
    if not lines or lines[0].split() != ["cpu", "user", "system"]:
        return {}
    usage: dict[CpuId, tuple[int, int]] = {}
    for line in lines[1:]:
        words = line.split()
        if len(words) == 3 and all(map(_NUMBER.fullmatch, words)):
            usage[CpuId(int(words[0]))] = int(words[1]), int(words[2])
    return usage


def parse_numbers(content: bytes) -> tuple[int, ...]:
    """Return the numbers of `cpuacct.usage_percpu_user`, one for each possible CPU in order.

    Raises ValueError where a word is no number: the places of all others would be in doubt.
    """
    words = content.decode("ascii", "replace").split()
    if not all(map(_NUMBER.fullmatch, words)):
        raise ValueError(f"not a line of numbers: {content[:60]!r}")
    return tuple(map(int, words))


def parse_io_stat(content: bytes) -> dict[DeviceNumber, IoCounters]:
    """Return v2's `io.stat`; devices without a number other than 0 are left out."""
    counters: dict[DeviceNumber, IoCounters] = {}
    for name, values in parse_nested_keyed(content).items():
        fields = {
            field: values[key] for key, field in _IO_STAT_FIELDS.items() if values.get(key, 0)
        }
        device = _DEVICE.fullmatch(name)
        if device and fields:
            counters[int(device[1]), int(device[2])] = IoCounters(**fields)
    return counters


def parse_blkio(content: bytes) -> dict[DeviceNumber, dict[str, int]]:
    """Return a `blkio.throttle.io_*` file: `8:0 Read 123` -> {(8, 0): {"Read": 123}}.

    The last line, `Total 456`, is of no device; it and what is no such line are skipped.
    """
    devices: dict[DeviceNumber, dict[str, int]] = {}
    for line in content.decode("ascii", "replace").splitlines():
        words = line.split()
        if len(words) != 3 or not _NUMBER.fullmatch(words[2]):
            continue
        device = _DEVICE.fullmatch(words[0])
        if device:
            operations = devices.setdefault((int(device[1]), int(device[2])), {})
            operations[words[1]] = int(words[2])
    return devices


def parse_pids(content: bytes) -> Iterator[Pid]:
    """Yield the ids of a `cgroup.procs`; 0, a task that our PID namespace cannot see, is not."""
    for word in content.split():
        if word.isdigit() and len(word) <= _U64_DIGITS and (pid := int(word)):
            yield Pid(pid)
