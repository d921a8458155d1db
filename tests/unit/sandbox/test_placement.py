"""Which CPUs a sandbox gets for a quota: as many as it needs, spread over the sandboxes."""

from __future__ import annotations

from math import ceil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.ids import CpuId
from procscope.sandbox.placement import choose_cpus, place
from procscope.units import CPU_PERIOD_USEC

Cpus = tuple[CpuId, ...]

cpu_sets = st.sets(st.integers(0, 255).map(CpuId), min_size=1, max_size=64).map(
    lambda cpus: tuple(sorted(cpus))
)


@given(
    quota_usec=st.integers(1000, 80 * CPU_PERIOD_USEC),
    available=cpu_sets,
    taken=st.lists(cpu_sets, max_size=8),
)
def test_as_many_cpus_as_the_quota_needs_none_of_them_twice(
    quota_usec: int, available: Cpus, taken: list[Cpus]
) -> None:
    chosen = choose_cpus(quota_usec, available, taken)
    if chosen is None:
        assert ceil(quota_usec / CPU_PERIOD_USEC) >= len(available)
    else:
        assert len(set(chosen)) == len(chosen) == ceil(quota_usec / CPU_PERIOD_USEC)
        assert set(chosen) <= set(available)
        assert list(chosen) == sorted(chosen)


@given(count=st.integers(1, 16), sandboxes=st.integers(1, 40), quota=st.integers(1, 15))
def test_sandboxes_of_one_size_are_spread_evenly(count: int, sandboxes: int, quota: int) -> None:
    available = tuple(CpuId(cpu) for cpu in range(count))
    taken: list[Cpus] = []
    for _ in range(sandboxes):
        taken.append(choose_cpus(quota * CPU_PERIOD_USEC, available, taken) or available)
    users = [sum(cpu in cpus for cpus in taken) for cpu in available]
    assert max(users) - min(users) <= 1


@pytest.mark.parametrize("effective", ["cpuset.cpus.effective", "cpuset.effective_cpus"])
def test_a_place_is_read_from_the_cgroups_of_the_others(tmp_path: Path, effective: str) -> None:
    (tmp_path / effective).write_text("0-3\n")
    for name, cpus in (("one", "0\n"), ("two", "1-2\n"), ("all", "0-3\n"), ("new", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cpuset.cpus").write_text(cpus)
    assert place(CPU_PERIOD_USEC // 2, str(tmp_path), "new") == (3,)
    assert place(2 * CPU_PERIOD_USEC, str(tmp_path), "new") == (0, 3)
    assert place(4 * CPU_PERIOD_USEC, str(tmp_path), "new") is None


def test_no_choice_is_made_where_nothing_can_be_read(tmp_path: Path) -> None:
    assert place(CPU_PERIOD_USEC, str(tmp_path / "gone"), "new") is None
    (tmp_path / "cpuset.cpus.effective").write_text("garbage\n")
    assert place(CPU_PERIOD_USEC, str(tmp_path), "new") is None
