"""Limits as control files: the right files, texts and order for cgroup v1 and v2."""

from __future__ import annotations

from pathlib import Path

import pytest

from procscope.ids import CpuId
from procscope.sandbox.limits import write_limits
from procscope.sandbox.spec import Host, RunOptions, SandboxSpec, build_spec

_HOST = Host(memory_bytes=2**40, cpus=tuple(CpuId(cpu) for cpu in range(8)))
_V1 = [
    "memory.limit_in_bytes",
    "memory.memsw.limit_in_bytes",
    "cpu.cfs_period_us",
    "cpu.cfs_quota_us",
    "cpuset.cpus",
]
_V2 = ["memory.max", "memory.swap.max", "cpu.max", "cpuset.cpus"]


def _spec(memory_swap: str | None = None) -> SandboxSpec:
    return build_spec(
        RunOptions(
            ("true",), memory="256m", memory_swap=memory_swap, cpus="1.5", cpuset_cpus="2-3"
        ),
        _HOST,
    )


def _cgroup(folder: Path, files: list[str]) -> dict[str, str]:
    for file in files:
        (folder / file).touch()
    return dict.fromkeys(("memory", "cpu", "cpuset"), str(folder))


def _texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_v1_counts_memory_and_swap_together(tmp_path: Path) -> None:
    assert write_limits(_spec(), _cgroup(tmp_path, _V1)) == []
    assert _texts(tmp_path) == {
        "memory.limit_in_bytes": "268435456",
        "memory.memsw.limit_in_bytes": "536870912",
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "150000",
        "cpuset.cpus": "2-3",
    }


def test_v2_counts_swap_alone(tmp_path: Path) -> None:
    assert write_limits(_spec("300m"), _cgroup(tmp_path, _V2)) == []
    assert _texts(tmp_path) == {
        "memory.max": "268435456",
        "memory.swap.max": str(44 * 1024**2),
        "cpu.max": "150000 100000",
        "cpuset.cpus": "2-3",
    }


@pytest.mark.parametrize(
    ("memory_swap", "v1", "v2"), [("-1", "-1", "max"), ("256m", "268435456", "0")]
)
def test_unlimited_and_no_swap(tmp_path: Path, memory_swap: str, v1: str, v2: str) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    write_limits(_spec(memory_swap), _cgroup(tmp_path / "1", _V1))
    write_limits(_spec(memory_swap), _cgroup(tmp_path / "2", _V2))
    assert _texts(tmp_path / "1")["memory.memsw.limit_in_bytes"] == v1
    assert _texts(tmp_path / "2")["memory.swap.max"] == v2


@pytest.mark.parametrize("swap_file", ["memory.memsw.limit_in_bytes", "memory.swap.max"])
def test_a_kernel_without_swap_accounting_limits_memory_all_the_same(
    tmp_path: Path, swap_file: str
) -> None:
    files = [file for file in (_V1 if "memsw" in swap_file else _V2) if file != swap_file]
    assert write_limits(_spec(), _cgroup(tmp_path, files)) == []
    assert swap_file not in _texts(tmp_path)


def test_a_missing_controller_is_named_with_its_option(tmp_path: Path) -> None:
    directories = _cgroup(tmp_path, ["memory.max"])
    reasons = write_limits(_spec(), directories)
    assert reasons == [
        "--cpus: the cpu controller is not available here",
        "--cpuset-cpus: the cpuset controller is not available here",
    ]
    assert len(write_limits(_spec(), {})) == 3


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    directories = _cgroup(tmp_path, ["memory.max", "cpu.max"])
    (tmp_path / "cpuset.cpus").mkdir()
    (reason,) = write_limits(_spec(), directories)
    assert reason == f"--cpuset-cpus: writing 2-3 to {tmp_path}/cpuset.cpus: Is a directory"
