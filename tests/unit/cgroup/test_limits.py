"""Proves: limits combine over all ancestors, and no content of any file breaks a reader."""

from __future__ import annotations

import shutil
import tempfile
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procscope.cgroup.cgroup import Cgroup
from procscope.cgroup.files import CgroupGone
from procscope.cgroup.lineage import binding_index, smallest_limit, smallest_quota
from procscope.cgroup.model import CpuQuota, Limit, Missing, Unlimited
from tests.unit.cgroup.trees import made_v1, made_v2

limits = st.integers(0, 1 << 50) | st.just(Missing.UNLIMITED)
quotas = st.builds(CpuQuota, st.integers(1, 1 << 30), st.integers(1, 1 << 20))


def as_text(limit: Limit) -> str:
    return "max\n" if isinstance(limit, Missing) else f"{limit}\n"


@settings(deadline=None)
@given(values=st.lists(limits, min_size=1))
def test_the_smallest_limit_is_below_all_and_one_of_them(values: list[Limit]) -> None:
    smallest = smallest_limit(values)
    assert smallest in values
    assert values[binding_index(values)] == smallest
    for value in values:
        if not isinstance(value, Missing):
            assert not isinstance(smallest, Missing)
            assert smallest <= value
    if not isinstance(smallest, Missing):
        assert smallest not in values[binding_index(values) + 1 :], "the outermost binds"


@settings(deadline=None)
@given(values=st.lists(quotas | st.just(Missing.UNLIMITED)))
def test_the_smallest_quota_is_exact(values: list[CpuQuota | Unlimited]) -> None:
    shares = [
        Fraction(value.quota_usec, value.period_usec)
        for value in values
        if not isinstance(value, Missing)
    ]
    smallest = smallest_quota(values)
    if isinstance(smallest, Missing):
        assert not shares
    else:
        assert Fraction(smallest.quota_usec, smallest.period_usec) == min(shares)


@settings(deadline=None)
@given(values=st.lists(st.tuples(limits, st.integers(0, 1 << 40)), min_size=1, max_size=4))
def test_a_v2_limit_binds_everything_below(values: list[tuple[Limit, int]]) -> None:
    """Outermost first in `values`; the usage is that of the cgroup which sets the limit."""
    files: dict[str, str] = {}
    for depth, (limit, usage) in enumerate(values, 1):
        files[f"{'c/' * depth}memory.max"] = as_text(limit)
        files[f"{'c/' * depth}memory.current"] = f"{usage}\n"
    with tempfile.TemporaryDirectory() as root:
        cgroup = made_v2(Path(root), files, "/" + "/".join("c" * len(values)))
        result = cgroup.memory().limit
        cgroup.close()
    only_limits: list[Limit] = [limit for limit, _ in values]
    assert result.limit_bytes == smallest_limit(only_limits)
    if isinstance(result.limit_bytes, Missing):
        assert result.usage_bytes == values[-1][1]
    else:
        assert result.usage_bytes == values[only_limits.index(result.limit_bytes)][1]


def test_a_changed_limit_is_seen_at_once(tmp_path: Path) -> None:
    cgroup = made_v2(tmp_path, {"c/memory.max": "max\n", "c/cpu.max": "max 100000\n"})
    assert cgroup.memory().limit.limit_bytes is Missing.UNLIMITED
    (tmp_path / "sys/fs/cgroup/c/memory.max").write_text("4096\n")
    (tmp_path / "sys/fs/cgroup/c/cpu.max").write_text("50000 100000\n")
    assert cgroup.memory().limit.limit_bytes == 4096
    assert cgroup.cpu_share().quota == CpuQuota(50_000, 100_000)
    cgroup.close()


def test_v1_without_memsw_in_memory_stat_asks_all_ancestors(tmp_path: Path) -> None:
    cgroup = made_v1(
        tmp_path,
        {
            "memory/p/memory.memsw.limit_in_bytes": "5000\n",
            "memory/p/memory.limit_in_bytes": "9223372036854771712\n",
            "memory/p/c/memory.memsw.limit_in_bytes": "9223372036854771712\n",
            "memory/p/c/memory.memsw.usage_in_bytes": "70\n",
            "memory/p/c/memory.limit_in_bytes": "4000\n",
            "memory/p/c/memory.usage_in_bytes": "60\n",
            "memory/p/c/memory.swappiness": "garbage\n",
        },
        "/p/c",
    )
    swap = cgroup.memory().swap
    assert not isinstance(swap, Missing)
    assert repr(swap) == (
        "SwapV1(memsw_limit_bytes=5000, memory_limit_bytes=4000, memsw_usage_bytes=70,"
        " memory_usage_bytes=60, swappiness=<Missing.UNREADABLE: 'unreadable'>)"
    )
    cgroup.close()


def test_niced_time_is_not_user_time_too(tmp_path: Path) -> None:
    stat = "usage_usec 50\nuser_usec 30\nsystem_usec 20\nnice_usec 12\n"
    usage = made_v2(tmp_path, {"c/cpu.stat": stat}).cpu_usage()
    assert (usage.user_ns, usage.nice_ns, usage.system_ns) == (18_000, 12_000, 20_000)


def test_more_niced_than_user_time_does_not_go_below_zero(tmp_path: Path) -> None:
    """The kernel scales user time to the exact run time, niced time it does not."""
    usage = made_v2(tmp_path, {"c/cpu.stat": "user_usec 30\nnice_usec 31\n"}).cpu_usage()
    assert (usage.user_ns, usage.nice_ns) == (0, 30_000)


def test_v1_without_per_cpu_files_counts_in_ticks(tmp_path: Path) -> None:
    cgroup = made_v1(tmp_path, {"cpuacct/c/cpuacct.stat": "user 150\nsystem 3\n"})
    usage = cgroup.cpu_usage()
    assert (usage.user_ns, usage.system_ns) == (1_500_000_000, 30_000_000)
    assert usage.per_cpu is None


V2_FILES = [
    *("memory.max", "memory.current", "memory.stat", "memory.swap.max", "memory.swap.current"),
    *("cpu.max", "cpu.stat", "cpu.stat.local", "cpuset.cpus.effective", "io.stat"),
    *("hugetlb.2MB.max", "hugetlb.2MB.current", "cgroup.procs", "cgroup.threads"),
]
V1_FILES = [
    *("memory/c/memory.limit_in_bytes", "memory/c/memory.usage_in_bytes", "memory/c/memory.stat"),
    *("memory/c/memory.memsw.usage_in_bytes", "memory/c/memory.swappiness", "memory/c/tasks"),
    *("memory/c/memory.memsw.limit_in_bytes", "cpu/c/cpu.cfs_quota_us", "cpu/c/cpu.cfs_period_us"),
    *("cpu/c/cpu.stat", "cpu/c/cpu.stat.local", "cpuacct/c/cpuacct.usage_all"),
    *("cpuacct/c/cpuacct.usage_percpu_user", "cpuacct/c/cpuacct.usage_percpu_sys"),
    *("cpuacct/c/cpuacct.stat", "cpuset/c/cpuset.effective_cpus", "cpuset/c/cpuset.cpus"),
    *("blkio/c/blkio.throttle.io_serviced", "blkio/c/blkio.throttle.io_service_bytes"),
    *("hugetlb/c/hugetlb.2MB.limit_in_bytes", "hugetlb/c/hugetlb.2MB.usage_in_bytes"),
]
contents = st.text(st.sampled_from("0123456789 -max:\nRedT=,xé"), max_size=30) | st.sampled_from(
    ["max\n", "-1\n", "4096\n", "50000 100000\n", "user_usec 5\n", "8:0 Read 5\n", "", "9" * 5000]
)


def read_everything(cgroup: Cgroup) -> None:
    memory = cgroup.memory()
    assert memory.limit.usage_bytes >= 0
    usage = cgroup.cpu_usage()
    assert min(usage.user_ns, usage.nice_ns, usage.system_ns, usage.throttled_ns) >= 0
    cgroup.cpu_share()
    cgroup.io()
    cgroup.hugetlb("2MB")
    assert all(pid > 0 for pid in [*cgroup.processes(), *cgroup.threads()])


@settings(deadline=None)
@given(files=st.dictionaries(st.sampled_from(V2_FILES), contents))
def test_any_content_of_v2_files_is_survived(files: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as root:
        cgroup = made_v2(Path(root), {f"c/{name}": text for name, text in files.items()})
        read_everything(cgroup)
        cgroup.close()


@settings(deadline=None)
@given(files=st.dictionaries(st.sampled_from(V1_FILES), contents, min_size=1))
def test_any_content_of_v1_files_is_survived(files: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as root:
        cgroup = made_v1(Path(root), files)
        read_everything(cgroup)
        cgroup.close()


def test_a_cgroup_that_vanishes_between_two_reads(tmp_path: Path) -> None:
    cgroup = made_v2(tmp_path, {"c/memory.max": "1\n"})
    key = cgroup.identity()
    assert cgroup.exists()
    directory = tmp_path / "sys/fs/cgroup/c"
    kept = tmp_path / "kept"
    directory.rename(kept)
    assert not cgroup.exists()
    with pytest.raises(CgroupGone):
        cgroup.memory()
    with pytest.raises(CgroupGone):
        cgroup.pressure("cpu")
    with pytest.raises(CgroupGone):
        list(cgroup.processes())
    again = made_v2(tmp_path, {"c/memory.max": "1\n"})
    assert again.identity() != key
    assert not cgroup.exists(), "the same path is another cgroup now"
    shutil.rmtree(directory)
    with pytest.raises(CgroupGone):
        made_v2(tmp_path, {}, "/../c")
    cgroup.close()
    again.close()
