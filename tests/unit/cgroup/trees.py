"""Cgroup trees to read from: recorded ones, and small ones made in a temporary directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from procscope.cgroup.cgroup import Cgroup
from procscope.cgroup.files import FileBudget
from procscope.cgroup.hierarchy import Hierarchies, discover
from procscope.ids import CgroupPath
from procscope.linux.mountinfo import Mount, parse_mountinfo
from procscope.linux.procfs import UNIFIED, parse_cgroups
from procscope.values import replace

RECORDED = Path(__file__).parents[2] / "data" / "cgroup"


def mounts_below(root: Path, mountinfo: str) -> list[Mount]:
    """The mounts of a mountinfo text as if `root` were the host's `/`."""
    return [
        replace(mount, mount_point=f"{root}{mount.mount_point}")
        for mount in parse_mountinfo(mountinfo)
    ]


BUDGETS: list[FileBudget] = []
"""Every budget of the test that runs; its files are closed after it."""


def new_budget(max_open: int | None = None) -> FileBudget:
    """A budget whose files do not stay open for longer than the test."""
    BUDGETS.append(FileBudget(max_open))
    return BUDGETS[-1]


def recorded_hierarchies(name: str) -> Hierarchies:
    tree = RECORDED / name
    return discover(mounts_below(tree, (tree / "mountinfo").read_text()))


def recorded_paths(name: str) -> Mapping[str, CgroupPath]:
    return parse_cgroups((RECORDED / name / "cgroup").read_text())


def recorded(name: str, path: str | None = None) -> Cgroup:
    """The container of a recorded tree; `path`: another cgroup of it."""
    paths = recorded_paths(name)
    if path is not None:
        paths = dict.fromkeys(paths, CgroupPath(path))
    return Cgroup(recorded_hierarchies(name), paths, new_budget(64), user_hz=100)


def mount_line(mount_point: str, fstype: str, options: str, root: str = "/") -> str:
    return f"30 1 0:30 {root} {mount_point} rw - {fstype} {fstype} rw,{options}\n"


V2_MOUNT = mount_line("/sys/fs/cgroup", "cgroup2", "nsdelegate")
CONTROLLERS = "cpuset cpu io memory hugetlb pids\n"


def write_tree(root: Path, files: Mapping[str, str]) -> None:
    for name, content in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def made_v2(root: Path, files: Mapping[str, str], path: str = "/c") -> Cgroup:
    """A v2 container at `path`; `files` are named below the hierarchy's root."""
    below = {f"/sys/fs/cgroup/{name.lstrip('/')}": content for name, content in files.items()}
    write_tree(root, {"/sys/fs/cgroup/cgroup.controllers": CONTROLLERS, **below})
    (root / f"sys/fs/cgroup{path}").mkdir(parents=True, exist_ok=True)
    return Cgroup(
        discover(mounts_below(root, V2_MOUNT)), {UNIFIED: CgroupPath(path)}, new_budget(64)
    )


def made_v1(root: Path, files: Mapping[str, str], path: str = "/c") -> Cgroup:
    """A v1 container at `path`; `files` are named by hierarchy: `memory/c/memory.stat`."""
    controllers = sorted({name.strip("/").split("/")[0] for name in files})
    below = {f"/sys/fs/cgroup/{name.lstrip('/')}": content for name, content in files.items()}
    roots = {f"/sys/fs/cgroup/{name}/cgroup.sane_behavior": "0\n" for name in controllers}
    write_tree(root, {**roots, **below})
    lines = [mount_line(f"/sys/fs/cgroup/{name}", "cgroup", name) for name in controllers]
    return Cgroup(
        discover(mounts_below(root, "".join(lines))),
        dict.fromkeys(controllers, CgroupPath(path)),
        new_budget(64),
        user_hz=100,
    )
