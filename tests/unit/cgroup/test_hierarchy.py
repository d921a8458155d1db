"""Proves: controllers are found by the mount table alone, in whole, hybrid and partial mounts."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procscope.cgroup.hierarchy import Hierarchy, discover
from procscope.ids import CgroupPath
from procscope.linux.mountinfo import parse_mountinfo
from procscope.linux.procfs import UNIFIED
from tests.unit.cgroup.trees import mount_line, mounts_below, recorded_hierarchies, write_tree


def path(text: str) -> CgroupPath:
    return CgroupPath(text)


def test_controllers_mounted_together_have_the_same_directory() -> None:
    line = mount_line("/cg/cpu,cpuacct", "cgroup", "seclabel,xattr,cpu,cpuacct,release_agent=/x")
    found = discover(parse_mountinfo(line))
    assert found.v1.keys() == {"cpu", "cpuacct"}
    for controller in ("cpu", "cpuacct"):
        assert found.directory(controller, path("/docker/a")) == "/cg/cpu,cpuacct/docker/a"
    assert found.directory("memory", path("/docker/a")) is None


def test_a_named_hierarchy_is_no_controller() -> None:
    line = mount_line("/cg/systemd", "cgroup", "xattr,none,name=systemd")
    assert discover(parse_mountinfo(line)).v1.keys() == {"name=systemd"}


def test_v2_controllers_come_from_its_root(tmp_path: Path) -> None:
    write_tree(tmp_path, {"/u/cgroup.controllers": "cpu memory\n"})
    found = discover(mounts_below(tmp_path, mount_line("/u", "cgroup2", "nsdelegate")))
    assert found.v2_controllers == {"cpu", "memory"}
    assert found.version("memory") == 2
    assert found.version("hugetlb") is None
    assert found.directory("cpu", path("/a/b")) == f"{tmp_path}/u/a/b"
    assert found.directory(UNIFIED, path("/")) == f"{tmp_path}/u"


def test_hybrid_as_recorded() -> None:
    found = recorded_hierarchies("hybrid-6.18")
    assert found.version("memory") == 1
    assert found.version("hugetlb") == 2
    assert found.version(UNIFIED) == 2
    directory = found.directory(UNIFIED, path("/demo"))
    assert directory is not None
    assert directory.endswith("/sys/fs/cgroup/unified/demo")
    assert found.v1["memory"][0].is_whole
    assert found.v2[0].is_whole


def test_a_mount_of_a_part_shows_what_is_below_it() -> None:
    line = mount_line("/cg/memory", "cgroup", "memory", root="/docker/abc")
    found = discover(parse_mountinfo(line))
    assert found.directory("memory", path("/docker/abc")) == "/cg/memory"
    assert found.directory("memory", path("/docker/abc/x")) == "/cg/memory/x"
    assert found.directory("memory", path("/docker/abcd")) is None
    assert found.directory("memory", path("/docker")) is None
    assert found.lineage("memory", path("/docker/abc/x")) == ("/cg/memory/x", "/cg/memory")


@pytest.mark.parametrize("whole_first", [True, False])
def test_of_two_mounts_of_one_hierarchy_the_whole_one_is_taken(whole_first: bool) -> None:
    lines = [
        mount_line("/cg/memory", "cgroup", "memory"),
        mount_line("/part", "cgroup", "memory", root="/docker/abc"),
    ]
    found = discover(parse_mountinfo("".join(lines if whole_first else lines[::-1])))
    assert found.directory("memory", path("/docker/abc")) == "/cg/memory/docker/abc"


def test_of_two_mounts_at_one_place_the_later_counts() -> None:
    lines = mount_line("/cg", "cgroup", "memory") + mount_line("/cg", "cgroup2", "nsdelegate")
    found = discover(parse_mountinfo(lines))
    assert not found.v1
    assert found.directory(UNIFIED, path("/a")) == "/cg/a"


def test_outside_of_our_cgroup_namespace_there_is_no_directory() -> None:
    whole = Hierarchy(version=2, mount_point="/cg")
    assert whole.directory(path("/../../other")) is None
    assert whole.lineage(path("/../../other")) == ()
    outside = discover(parse_mountinfo(mount_line("/cg", "cgroup2", "x", root="/../..")))
    assert outside.directory(UNIFIED, path("/a")) is None


def test_the_root_cgroup_has_no_lineage_but_a_namespace_root_has(tmp_path: Path) -> None:
    """mountinfo says `/` for both; only in the namespace's root is there a cgroup of its own."""
    write_tree(tmp_path, {"/host/cgroup.procs": "", "/inside/cgroup.events": "populated 1\n"})
    lines = mount_line("/host", "cgroup2", "x"), mount_line("/inside", "cgroup2", "x")
    host, inside = (discover(mounts_below(tmp_path, line)) for line in lines)
    assert host.lineage(UNIFIED, path("/")) == ()
    assert host.lineage(UNIFIED, path("/a/b")) == (f"{tmp_path}/host/a/b", f"{tmp_path}/host/a")
    assert inside.lineage(UNIFIED, path("/")) == (f"{tmp_path}/inside",)


names = st.text(st.characters(codec="utf-8", exclude_characters="/\0\n"), min_size=1).filter(
    lambda name: name not in {".", ".."}
)


@settings(deadline=None)
@given(names_=st.lists(names), is_whole=st.booleans())
def test_every_directory_of_a_lineage_is_inside_the_mount(
    names_: list[str], is_whole: bool
) -> None:
    hierarchy = Hierarchy(version=1, mount_point="/m", is_whole=is_whole)
    cgroup = path("/" + "/".join(names_))
    lineage = hierarchy.lineage(cgroup)
    assert len(lineage) == len(names_) + (0 if is_whole else 1)
    assert all(one == "/m" or one.startswith("/m/") for one in lineage)
    assert not lineage or lineage[0] == hierarchy.directory(cgroup)
    for inner, outer in pairwise(lineage):
        assert inner.rpartition("/")[0] == outer


@settings(deadline=None)
@given(cgroup=st.text(), root=st.text())
def test_no_text_leads_out_of_the_mount(cgroup: str, root: str) -> None:
    directory = Hierarchy(version=2, mount_point="/m", root=root).directory(path(cgroup))
    assert directory is None or (
        (directory == "/m" or directory.startswith("/m/")) and ".." not in directory.split("/")
    )
