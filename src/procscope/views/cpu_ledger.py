"""What `stat` and `uptime` have told so far of a container's CPU time, and its stored form."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from procscope.cgroup.model import PerCpuTime
from procscope.ids import CpuId


class CpuColumns(NamedTuple):
    """The columns of one CPU's line in `/proc/stat`, in ticks (USER_HZ); the others are 0."""

    user: int = 0
    nice: int = 0
    system: int = 0
    idle: int = 0
    steal: int = 0

    @property
    def total(self) -> int:
        """The ticks of all columns together."""
        return sum(self)


class TakenTime(NamedTuple):
    """How much of each counter of `CpuUsage` the columns contain or have given up."""

    user_ns: int = 0
    nice_ns: int = 0
    system_ns: int = 0
    throttled_ns: int = 0


class CpuLedger(NamedTuple):
    """What a container has been told, from which the next answer must not go backwards."""

    age_ticks: int
    columns: Mapping[CpuId, CpuColumns]
    """Of every CPU that was ever visible: one that is hidden now may come back."""
    taken: TakenTime
    taken_per_cpu: Mapping[CpuId, PerCpuTime]

    def to_bytes(self) -> bytes:
        """Return a compact form for `from_bytes`, the same whatever the order of the mappings.

        Raises ValueError where a number is negative or has more than 64 bits.
        """
        numbers = [self.age_ticks, *self.taken]
        for rows in (self.columns, self.taken_per_cpu):
            for cpu, row in sorted(rows.items()):
                numbers += (cpu, *row)
        kinds = len(self.columns), len(self.taken_per_cpu)
        try:
            body = _layout(*kinds).pack(_MAGIC, _VERSION, *kinds, *numbers)
        except struct.error as error:
            raise ValueError(f"ledger cannot be stored: {error}") from error
        return body + _CHECKSUM.pack(zlib.crc32(body))

    @classmethod
    def from_bytes(cls, stored: bytes) -> CpuLedger | None:
        """Return the ledger that `to_bytes` stored; None for anything that is not one whole."""
        body, checksum = stored[: -_CHECKSUM.size], stored[-_CHECKSUM.size :]
        if len(body) < _HEADER.size or checksum != _CHECKSUM.pack(zlib.crc32(body)):
            return None
        magic, version, n_columns, n_per_cpu, age_ticks, *taken = _HEADER.unpack_from(body)
        columns_end = _HEADER.size + n_columns * _COLUMNS.size
        per_cpu_end = columns_end + n_per_cpu * _PER_CPU.size
        if (magic, version, len(body)) != (_MAGIC, _VERSION, per_cpu_end):
            return None
        columns = {
            CpuId(cpu): CpuColumns(*row)
            for cpu, *row in _COLUMNS.iter_unpack(body[_HEADER.size : columns_end])
        }
        if any(row.total > age_ticks for row in columns.values()):
            return None
        per_cpu = {
            CpuId(cpu): PerCpuTime(*times)
            for cpu, *times in _PER_CPU.iter_unpack(body[columns_end:])
        }
        return cls(age_ticks, columns, TakenTime(*taken), per_cpu)


_MAGIC = b"pcpu"
_VERSION = 2
"""Goes up with every change of the layout or of what a number means."""
_HEADER = struct.Struct("<4sHHHQ4Q")
"""Magic, version, number of rows of each kind, age in ticks, taken time."""
_COLUMNS = struct.Struct("<I5Q")
_PER_CPU = struct.Struct("<I3Q")
_CHECKSUM = struct.Struct("<I")


@lru_cache(maxsize=32)
def _layout(columns: int, per_cpu: int) -> struct.Struct:
    """Return the layout of a whole ledger with so many rows of each kind."""
    rows = _COLUMNS.format[1:] * columns + _PER_CPU.format[1:] * per_cpu
    return struct.Struct(_HEADER.format + rows)
