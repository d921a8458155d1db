"""Where a user may make cgroups: told from the mount table and the cgroup's own files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from procscope.sandbox.delegation import IN_SCOPE, NoSite, delegated_site, reexec_in_scope


def _proc(root: Path, mounts: str, cgroup: str) -> str:
    (root / "self").mkdir(parents=True)
    (root / "self" / "mountinfo").write_text(mounts)
    (root / "self" / "cgroup").write_text(cgroup)
    return str(root)


def _reason(proc: str) -> str:
    site = delegated_site(proc)
    assert isinstance(site, NoSite)
    return site.reason


def test_v1_alone_cannot_be_delegated(tmp_path: Path) -> None:
    mounts = "31 1 0:1 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    assert "v1 cannot be delegated" in _reason(_proc(tmp_path, mounts, "4:memory:/a\n"))


def test_on_a_hybrid_host_the_limits_are_roots(tmp_path: Path) -> None:
    """The v2 hierarchy is there, and may offer a controller, but none that limits are made of."""
    unified = tmp_path / "unified"
    unified.mkdir()
    (unified / "cgroup.controllers").write_text("hugetlb\n")
    mounts = (
        "31 1 0:1 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        f"32 1 0:2 / {unified} rw - cgroup2 cgroup2 rw\n"
    )
    proc = _proc(tmp_path / "proc", mounts, "4:memory:/a\n0::/\n")
    assert "cgroup v1 hierarchies, which only root may change" in _reason(proc)


def test_a_cgroup_that_is_not_the_users_is_named(tmp_path: Path) -> None:
    unified = tmp_path / "unified"
    (unified / "session-1.scope").mkdir(parents=True)
    (unified / "cgroup.controllers").write_text("cpu memory\n")
    proc = _proc(
        tmp_path / "proc",
        f"32 1 0:2 / {unified} rw - cgroup2 cgroup2 rw\n",
        "0::/session-1.scope\n",
    )
    assert _reason(proc) == "the cgroup /session-1.scope is not delegated to this user"


@pytest.mark.parametrize("case", ["no manager", "no systemd-run", "second start"])
def test_nothing_is_started_again_without_a_manager_or_twice(tmp_path: Path, case: str) -> None:
    """It returns: where it did start something, this process would be replaced."""
    systemd_run = tmp_path / "systemd-run"
    if case != "no systemd-run":
        systemd_run.write_text("#!/bin/sh\nexit 9\n")
        systemd_run.chmod(0o755)
    environ = {"PATH": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    if case == "second start":
        environ[IN_SCOPE] = "1"
    before = os.getpid()
    reexec_in_scope(("run", "true"), environ)
    assert os.getpid() == before
