"""The visible CPUs: the first N of the cpuset, N by the quota, never none."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.cgroup.model import CpuQuota, CpuShare, Missing
from procscope.views.cpus import CpuCount, visible_cpus
from tests.unit.views.recorded import cpus

ONLINE = cpus(0, 1, 2, 3, 5)
CPU_SETS = st.frozensets(st.integers(0, 9), max_size=6).map(lambda ids: cpus(*sorted(ids)))


@pytest.mark.parametrize(
    ("quota_usec", "shown"),
    [
        (1_000, 1),
        (50_000, 1),
        (100_000, 1),
        (100_001, 2),
        (150_000, 2),
        (400_000, 4),
        (9_900_000, 5),
    ],
)
def test_quota_is_rounded_up_to_whole_cpus(quota_usec: int, shown: int) -> None:
    share = CpuShare(cpuset=ONLINE, quota=CpuQuota(quota_usec, 100_000))
    assert visible_cpus(share, ONLINE, CpuCount.QUOTA) == ONLINE[:shown]


def test_count_by_cpuset_ignores_the_quota() -> None:
    share = CpuShare(cpuset=cpus(2, 3), quota=CpuQuota(50_000, 100_000))
    assert visible_cpus(share, ONLINE, CpuCount.CPUSET) == cpus(2, 3)
    assert visible_cpus(share, ONLINE, CpuCount.QUOTA) == cpus(2)


def test_without_limits_all_online_cpus_are_seen() -> None:
    for cpuset in (Missing.ABSENT, Missing.UNREADABLE):
        share = CpuShare(cpuset=cpuset, quota=Missing.UNLIMITED)
        assert visible_cpus(share, ONLINE, CpuCount.QUOTA) == ONLINE


def test_a_cpuset_that_is_offline_falls_back_to_the_online_cpus() -> None:
    share = CpuShare(cpuset=cpus(7), quota=Missing.UNLIMITED)
    assert visible_cpus(share, ONLINE, CpuCount.QUOTA) == ONLINE


def test_no_online_cpu_is_an_error() -> None:
    with pytest.raises(ValueError, match="online"):
        visible_cpus(CpuShare(Missing.ABSENT, Missing.UNLIMITED), (), CpuCount.QUOTA)


@given(
    cpuset=CPU_SETS,
    online=CPU_SETS.filter(bool),
    quota_usec=st.integers(0, 10_000_000),
    period_usec=st.integers(0, 1_000_000),
)
def test_visible_cpus_are_sorted_online_and_never_none(
    cpuset: tuple[int, ...], online: tuple[int, ...], quota_usec: int, period_usec: int
) -> None:
    share = CpuShare(cpus(*cpuset), CpuQuota(quota_usec, period_usec))
    shown = visible_cpus(share, cpus(*online), CpuCount.QUOTA)
    assert shown
    assert set(shown) <= set(online)
    assert all(a < b for a, b in pairwise(shown))
    if set(cpuset) & set(online):
        assert set(shown) <= set(cpuset)
