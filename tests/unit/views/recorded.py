"""The recorded host files, and values that many tests of views need."""

from __future__ import annotations

from pathlib import Path

from procscope.cgroup.model import (
    CpuUsage,
    Limit,
    Memory,
    MemoryLimit,
    MemoryStat,
    Missing,
    Swap,
    SwapV2,
)
from procscope.ids import CpuId

DATA = Path(__file__).parents[2] / "data" / "proc"
HOSTS = sorted(folder.name for folder in DATA.iterdir() if folder.is_dir())
MIB = 1 << 20
SECOND_NS = 1_000_000_000


def read(host: str, name: str) -> bytes:
    return (DATA / host / name).read_bytes()


def hosts_with(name: str) -> list[str]:
    found = [host for host in HOSTS if (DATA / host / name).is_file()]
    assert found, f"no recorded host has {name}"
    return found


def cpus(*numbers: int) -> tuple[CpuId, ...]:
    return tuple(CpuId(number) for number in numbers)


def memory(
    limit: Limit, usage_bytes: int = 0, stat: MemoryStat | None = None, swap: Swap | None = None
) -> Memory:
    return Memory(
        MemoryLimit(limit, usage_bytes),
        stat or MemoryStat(),
        swap or SwapV2(limit_bytes=Missing.UNLIMITED, usage_bytes=0),
    )


def usage(user_ns: int = 0, system_ns: int = 0, throttled_ns: int = 0) -> CpuUsage:
    return CpuUsage(user_ns, 0, system_ns, throttled_ns, per_cpu=None)
