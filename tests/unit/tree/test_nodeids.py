"""Proves: node ids are the same in every process, and lead back to their path in each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.ids import NodeId
from procscope.tree.nodeids import (
    ROOT,
    SysfsPaths,
    cpu_of_nodeid,
    cpu_of_path,
    is_sysfs,
    named_nodeid,
)

SYSFS = "/sys/devices/system/cpu"


def below(directory: str) -> Iterator[str]:
    """Every path below a folder, links not followed."""
    for parent, folders, files in os.walk(directory):
        for name in (*folders, *files):
            yield os.path.relpath(os.path.join(parent, name), directory)


def test_the_root_is_1() -> None:
    assert named_nodeid("") == ROOT == 1


def test_numbers_are_the_same_in_another_process() -> None:
    """Whatever the seed of its hashes is: an open node survives a restart."""
    code = (
        "from procscope.tree.nodeids import SysfsPaths, named_nodeid\n"
        "print(named_nodeid('proc/stat'), SysfsPaths('/').nodeid('cpu3/topology/core_id'))"
    )
    here = (named_nodeid("proc/stat"), SysfsPaths("/").nodeid("cpu3/topology/core_id"))
    for seed in ("1", "2"):
        told = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        assert tuple(map(int, told.split())) == here


@pytest.mark.skipif(not os.path.isdir(SYSFS), reason="this kernel shows no CPUs in /sys")
def test_every_real_path_has_its_own_number_and_is_found_again() -> None:
    """By a second table, of a worker that has not seen the lookup."""
    paths = ["", *below(SYSFS)]
    first = SysfsPaths(SYSFS)
    numbers = {path: first.nodeid(path) for path in paths}
    assert len(set(numbers.values())) == len(paths)
    second = SysfsPaths(SYSFS)
    assert {path: second.path(nodeid) for path, nodeid in numbers.items()} == {
        path: path for path in paths
    }


@pytest.mark.parametrize(
    "path", ["online", "cpu0", "cpu0/topology/core_id", "cpu17/online", "cpufreq/policy3/x", "cpu"]
)
def test_a_number_tells_the_cpu_that_it_belongs_to(path: str) -> None:
    nodeid = SysfsPaths("/").nodeid(path)
    assert is_sysfs(nodeid)
    assert cpu_of_nodeid(nodeid) == cpu_of_path(path)


def test_names_that_only_look_like_a_cpu() -> None:
    for name in ("cpu", "cpux", "cpu1x", "xcpu1", "cpu-1", "cpu\u0663", "cpufreq", "cpuidle"):
        assert cpu_of_path(name) is None
    assert cpu_of_path("cpu12/cpu13") == 12


def test_the_same_file_of_two_cpus_has_two_numbers(tmp_path: Path) -> None:
    paths = SysfsPaths(str(tmp_path))
    assert paths.nodeid("cpu1/online") != paths.nodeid("cpu2/online") != paths.nodeid("online")


def test_a_number_of_nothing_has_no_path(tmp_path: Path) -> None:
    paths = SysfsPaths(str(tmp_path))
    assert paths.path(NodeId(1 << 62 | 12345)) is None
    assert paths.path(NodeId(1 << 62 | 7 << 40 | 12345)) is None
    assert SysfsPaths(f"{tmp_path}/nothing").path(NodeId(1 << 62 | 1)) is None


def test_a_file_that_comes_later_is_found(tmp_path: Path) -> None:
    """A CPU that is plugged in."""
    later = SysfsPaths(str(tmp_path)).nodeid("cpu4/online")
    paths = SysfsPaths(str(tmp_path))
    assert paths.path(later) is None
    (tmp_path / "cpu4").mkdir()
    (tmp_path / "cpu4" / "online").touch()
    assert paths.path(later) == "cpu4/online"


_PATHS = st.lists(
    st.sampled_from(["cpu0", "cpu1", "cpu11", "topology", "x"])
    | st.binary(min_size=1, max_size=5).map(lambda name: os.fsdecode(name.translate(None, b"/\0"))),
    max_size=4,
).map("/".join)


@given(_PATHS, _PATHS)
def test_numbers_fit_and_do_not_meet(one: str, other: str) -> None:
    paths = SysfsPaths("/nowhere")
    first, second = paths.nodeid(one), paths.nodeid(other)
    assert 1 < first < 1 << 63
    assert (first == second) == (one == other)
    assert not is_sysfs(named_nodeid(one))
    assert named_nodeid(one) != first
    assert paths.path(first) == one
