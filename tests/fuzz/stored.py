"""Targets: what outlives a process and is read again, records of containers and ledgers."""

from __future__ import annotations

import struct
import zlib

from procscope.observe import asleep
from procscope.observe.loadblock import LoadBlock
from procscope.observe.records import RecordStore
from procscope.views.cpu_ledger import CpuLedger
from procscope.views.cpu_time import advance
from tests.fuzz.checks import require
from tests.fuzz.hosttexts import SEEN, USAGE
from tests.fuzz.parsers import folder

_BLOCK_OFFSETS = (0, 1024, 4096, 1 << 20)
"""Load, identity and ledger, see `observe/records.py`."""


def ledger(data: bytes) -> None:
    """Bytes of any kind, and the same with a checksum that is right, as a ledger."""
    for each in (data, data[:-4] + struct.pack("<I", zlib.crc32(data[:-4]))):
        known = CpuLedger.from_bytes(each)
        if known is None:
            continue
        require(CpuLedger.from_bytes(known.to_bytes()) == known, "not the same again")
        after = advance(known, USAGE, SEEN, known.age_ticks * 10**7 + 10**9, per_cpu=False)
        for cpu, row in known.columns.items():
            if cpu in SEEN:
                require(after.columns[cpu].user >= row.user, "time went backwards")
                require(after.columns[cpu].idle >= row.idle, "idle time went backwards")


def load_block(data: bytes) -> None:
    """The sampler's block."""
    block = LoadBlock.from_bytes(data)
    require(block is None or block.to_bytes() == data, "not the same again")


def record(data: bytes) -> None:
    """A record whose blocks have checksums that are right and any content, and one of any bytes."""
    store = RecordStore(str(folder() / "records"))
    name = "fuzz"
    framed = struct.pack("<II", len(data), zlib.crc32(data)) + data
    for content in (data, framed):
        with open(folder() / "records" / name, "wb") as file:
            for offset in _BLOCK_OFFSETS:
                file.seek(offset)
                file.write(content[: 1 << 16])
        one = store.open(name)
        try:
            identity = one.read_identity()
            require(identity is None or isinstance(identity.birth_ticks, int), "no birth")
            LoadBlock.from_bytes(one.read_load())
            asleep.from_bytes(one.read_asleep())
            CpuLedger.from_bytes(one.read_ledger() or b"")
        finally:
            one.close()
