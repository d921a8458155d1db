"""Proves: an agent that does not see its node is told so in one line, with what to set."""

from __future__ import annotations

from pathlib import Path

import pytest

from procscope.cgroup.hierarchy import discover
from procscope.daemon.hostview import leads_out, require_host_cgroups, require_shared
from procscope.errors import ProcscopeError
from procscope.linux.mountinfo import parse_mountinfo

V2 = "30 1 0:30 {root} {place} rw - cgroup2 cgroup rw\n"
V1 = "3{n} 1 0:3{n} {root} /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}\n"


def v1(root: str) -> str:
    names = ("memory", "cpu", "cpuset")
    return "".join(V1.format(n=n, root=root, name=name) for n, name in enumerate(names))


@pytest.mark.parametrize("path", ["/..", "/../..", "/../kubepods/pod1/c1"])
def test_a_path_that_leads_out(path: str) -> None:
    assert leads_out(["/", path])


@pytest.mark.parametrize("path", ["/", "/kubepods", "/..x", "/...", "/a/../b"])
def test_a_path_of_a_cgroup_that_is_ours(path: str) -> None:
    assert not leads_out([path])


def test_the_whole_tree_is_enough() -> None:
    require_host_cgroups(discover(parse_mountinfo(v1("/"))))


def test_the_whole_v2_tree_is_enough(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    require_host_cgroups(discover(parse_mountinfo(V2.format(root="/", place=tmp_path))))


@pytest.mark.parametrize("root", ["/kubepods/burstable/pod1/c1", "/../.."])
def test_a_part_of_the_tree_is_not(root: str, tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    for text in (v1(root), V2.format(root=root, place=tmp_path)):
        with pytest.raises(ProcscopeError, match=f"shows the cgroup {root} alone") as caught:
            require_host_cgroups(discover(parse_mountinfo(text)))
        assert "hostPath" in caught.value.hint


def test_of_two_mounts_the_one_that_shows_more_counts() -> None:
    """A runtime mounts the container's own cgroups elsewhere, too."""
    own = v1("/kubepods/pod1").replace("/sys/fs/cgroup", "/run/own")
    require_host_cgroups(discover(parse_mountinfo(own + v1("/"))))


def test_no_hierarchy_at_all() -> None:
    with pytest.raises(ProcscopeError, match="no cgroup hierarchy with the controller memory"):
        require_host_cgroups(discover([]))


@pytest.mark.parametrize(
    ("propagation", "told"), [("shared:5", False), ("master:5", True), ("", True)]
)
def test_mounts_must_reach_the_node(tmp_path: Path, propagation: str, told: bool) -> None:
    proc = tmp_path
    for name in ("1", "self"):
        (proc / name / "ns").mkdir(parents=True)
        (proc / name / "ns/mnt").touch()
    optional = f"{propagation} " if propagation else ""
    (proc / "self/mountinfo").write_text(
        "1 1 8:1 / / rw - ext4 x rw\n"
        f"2 1 8:2 /var/lib/procscope /var/lib/procscope rw {optional}- ext4 x rw\n"
    )
    if not told:
        require_shared("/var/lib/procscope/mount", str(proc))
        return
    with pytest.raises(ProcscopeError) as caught:
        require_shared("/var/lib/procscope/mount", str(proc))
    assert "Bidirectional" in caught.value.hint
