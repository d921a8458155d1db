"""Proves: the container's numbers come out of real and composed trees as they are in them."""

from __future__ import annotations

import errno
from collections.abc import Callable
from itertools import islice

import pytest

from procscope.cgroup.cgroup import Cgroup, Resource
from procscope.cgroup.model import (
    CpuQuota,
    Hugetlb,
    IoCounters,
    MemoryLimit,
    Missing,
    PerCpuTime,
    SwapV1,
    SwapV2,
)
from procscope.ids import CgroupPath, CpuId
from procscope.linux.procfs import UNIFIED
from tests.unit.cgroup.trees import (
    RECORDED,
    new_budget,
    recorded,
    recorded_hierarchies,
    recorded_paths,
)

MIB = 1 << 20
A, B = "1" * 64, "2" * 64
POD = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0a1b.slice"
TREES = sorted(path.parent.name for path in RECORDED.glob("*/mountinfo"))


def test_hybrid_memory() -> None:
    memory = recorded("hybrid-6.18").memory()
    assert memory.limit.limit_bytes == 256 * MIB
    assert 108 * MIB < memory.limit.usage_bytes < 256 * MIB
    assert 100 * MIB <= memory.stat.anon_bytes < 140 * MIB
    assert 8 * MIB <= memory.stat.file_bytes < 12 * MIB
    assert memory.stat.slab_unreclaimable_bytes > 0
    assert isinstance(memory.swap, SwapV1)
    assert memory.swap.memsw_limit_bytes == 512 * MIB
    assert memory.swap.memory_limit_bytes == 256 * MIB
    assert memory.swap.swappiness == 60


def test_hybrid_cpu() -> None:
    cgroup = recorded("hybrid-6.18")
    share = cgroup.cpu_share()
    assert share.cpuset == (CpuId(1),)
    assert share.quota == CpuQuota(50_000, 100_000)
    usage = cgroup.cpu_usage(of_each_cpu=True)
    assert usage.per_cpu is not None
    assert usage.per_cpu[CpuId(0)] == PerCpuTime(0, 0, 73_932)
    assert usage.per_cpu[CpuId(1)].user_ns == 2199701734
    # The sum is not that of the samples, but the kernel's corrected one.
    assert usage.user_ns == 2020000000
    assert usage.throttled_ns == 1917057583


def test_hybrid_takes_the_rest_from_where_it_is() -> None:
    cgroup = recorded("hybrid-6.18")
    assert cgroup.io() == {(7, 0): IoCounters(64 * MIB, 128 * MIB, 0, 128, 256, 0)}
    assert cgroup.pressure("cpu").startswith(b"some avg10=")
    assert cgroup.hugetlb("2MB") is Missing.ABSENT, "not enabled in the container's v2 cgroup"
    (process,) = cgroup.processes()
    assert list(cgroup.threads()) == [process]


def test_flat_v2_memory_and_swap() -> None:
    memory = recorded("v2-flat-6.12").memory()
    assert memory.limit == MemoryLimit(64 * MIB, 64782336)
    assert memory.swap == SwapV2(128 * MIB, 33148928)
    assert memory.stat.file_bytes == memory.stat.shmem_bytes == 64520192
    assert memory.stat.swapcached_bytes == 24576
    assert memory.stat.slab_reclaimable_bytes == 225360
    assert memory.stat.file_mapped_bytes == 0, "`file` is another key than `file_mapped`"


def test_flat_v2_cpu_and_io() -> None:
    cgroup = recorded("v2-flat-6.12")
    assert cgroup.cpu_share().cpuset == (CpuId(1), CpuId(3))
    assert cgroup.cpu_share().quota == CpuQuota(150_000, 100_000)
    usage = cgroup.cpu_usage()
    assert (usage.user_ns, usage.nice_ns, usage.system_ns) == (5886223000, 0, 2927133000)
    assert usage.per_cpu is None
    assert cgroup.io()[254, 16] == IoCounters(33046528, 4194304, 0, 43, 4, 0)
    assert cgroup.hugetlb("2MB") == Hugetlb(Missing.UNLIMITED, 0)
    assert cgroup.hugetlb("1TB") is Missing.ABSENT


def test_a_pod_limit_counts_the_siblings() -> None:
    memory = recorded("v2-pod-6.12").memory()
    assert memory.limit == MemoryLimit(512 * MIB, 21303296)


def test_of_equal_limits_the_ancestor_binds() -> None:
    path = f"{POD}/cri-containerd-{B}.scope"
    memory = recorded("v2-pod-6.12", path).memory()
    assert memory.limit == MemoryLimit(512 * MIB, 21303296), "the pod's usage, not 21278720"


def test_a_pod_quota_throttles_each_container_for_itself() -> None:
    """The container's `cpu.stat` says 0 there: only `cpu.stat.local` knows."""
    busy = recorded("v2-pod-6.12")
    sleeping = recorded("v2-pod-6.12", f"{POD}/cri-containerd-{B}.scope")
    assert busy.cpu_share().quota == CpuQuota(70_000, 100_000)
    assert busy.cpu_usage().throttled_ns == 3992837000
    assert sleeping.cpu_usage().throttled_ns == 944798000


def test_a_nested_container_has_all_tasks_below_it() -> None:
    path = f"/system.slice/docker-{B}.scope"
    outer = recorded("v2-nested-6.12", path)
    inner = recorded("v2-nested-6.12")
    in_cron = set(inner.processes())
    in_container = set(outer.processes())
    assert len(in_cron) == 1
    assert len(in_container) == 2
    assert in_cron < in_container
    assert set(outer.threads()) == in_container
    assert len(list(outer.threads(limit=1))) == 1
    assert list(outer.threads(limit=0)) == []
    assert inner.memory().limit.limit_bytes == 512 * MIB, "the container's limit binds its parts"


def test_kernel_5_10() -> None:
    cgroup = recorded("v2-flat-5.10")
    memory = cgroup.memory()
    assert memory.limit == MemoryLimit(256 * MIB, 100 * MIB)
    assert memory.swap == SwapV2(0, 0), "a limit of 0 is a limit"
    assert memory.stat.anon_thp_bytes == 2 * MIB
    assert memory.stat.pagetables_bytes == 0, "5.10 does not count it"
    assert cgroup.cpu_usage().throttled_ns == 700_000_000, "of `cpu.stat`: no `cpu.stat.local`"
    assert list(cgroup.threads()) == [4242, 4250, 4251]


def test_controllers_that_are_not_delegated() -> None:
    cgroup = recorded("v2-rootless-6.1")
    memory = cgroup.memory()
    assert memory.limit == MemoryLimit(1024 * MIB, 400 * MIB)
    assert memory.swap is Missing.ABSENT
    share = cgroup.cpu_share()
    assert share.quota == CpuQuota(200_000, 100_000), "of the nearest that has the controller"
    assert share.cpuset == tuple(map(CpuId, range(8)))
    assert cgroup.cpu_usage().user_ns == 400_000_000
    assert cgroup.cpu_usage().throttled_ns == 0
    assert cgroup.io() == {}
    assert cgroup.hugetlb("2MB") is Missing.ABSENT
    with pytest.raises(FileNotFoundError):
        cgroup.pressure("memory")


def test_an_old_v1_ancestor_without_hierarchy_does_not_count() -> None:
    memory = recorded("v1-use-hierarchy-4.14").memory()
    assert memory.limit == MemoryLimit(512 * MIB, 300 * MIB), "not 64 MiB of `/limited`"
    assert memory.swap is Missing.ABSENT
    assert memory.stat.anon_bytes == 40 * MIB
    assert memory.stat.anon_thp_bytes == 2 * MIB
    assert memory.stat.file_mapped_bytes == 524288
    assert memory.stat.slab_unreclaimable_bytes == 786432


def test_old_v1_files() -> None:
    cgroup = recorded("v1-use-hierarchy-4.14")
    assert cgroup.cpu_share().cpuset == tuple(map(CpuId, range(4)))
    assert cgroup.cpu_share().quota == CpuQuota(30_000, 100_000)
    usage = cgroup.cpu_usage(of_each_cpu=True)
    assert (usage.user_ns, usage.system_ns) == (70000000, 10000000)
    assert usage.throttled_ns == 0, "the parent's 123 ns are also the siblings'"
    assert cgroup.io() == {(8, 0): IoCounters(20480, 8192, 0, 5, 2, 0)}
    assert cgroup.hugetlb("2MB") == Hugetlb(8 * MIB, 4 * MIB)
    assert list(cgroup.threads()) == [77, 78]
    with pytest.raises(FileNotFoundError):
        cgroup.pressure("cpu")


@pytest.mark.parametrize("tree", TREES)
def test_what_a_hierarchy_root_counts_is_nobodys(tree: str) -> None:
    """A container that is in one hierarchy only gets no other hierarchy's root as its own."""
    paths = recorded_paths(tree)
    home = "memory" if "memory" in paths else UNIFIED
    at_root = {**dict.fromkeys(paths, CgroupPath("/")), home: paths[home]}
    cgroup = Cgroup(recorded_hierarchies(tree), at_root, new_budget())
    assert cgroup.memory().limit.limit_bytes == recorded(tree).memory().limit.limit_bytes
    if home == "memory":
        assert cgroup.cpu_usage().user_ns == 0
        assert cgroup.io() == {}
        with pytest.raises(FileNotFoundError) as caught:
            cgroup.pressure("io")
        assert caught.value.errno == errno.ENOENT


@pytest.mark.parametrize("tree", TREES)
def test_a_second_read_opens_nothing_new(tree: str) -> None:
    budget = new_budget(256)
    cgroup = Cgroup(recorded_hierarchies(tree), recorded_paths(tree), budget)
    reads: list[Callable[[], object]] = [
        *(cgroup.memory, cgroup.cpu_share, cgroup.cpu_usage, cgroup.io),
        lambda: cgroup.hugetlb("2MB"),
    ]
    first = [read() for read in reads]
    opened = len(budget)
    assert [read() for read in reads] == first
    assert len(budget) == opened
    cgroup.close()
    assert len(budget) == 0
    assert [read() for read in reads] == first, "a closed container opens its files again"
    cgroup.close()


def test_pressure_is_given_as_written() -> None:
    resources: tuple[Resource, ...] = ("cpu", "io", "memory")
    for resource in resources:
        lines = recorded("v2-flat-6.12").pressure(resource).splitlines()
        assert [line.split()[0] for line in islice(lines, 2)] == [b"some", b"full"]
