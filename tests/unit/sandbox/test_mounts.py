"""The mount plan: which views go where, told before it is done."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from procscope.sandbox.mounts import BindReadOnly, execute, namespace_plan, view_plan
from procscope.tree.sources import Pinned

_FILES = ("proc/meminfo", "proc/pressure/cpu", "proc/uptime", "sys/devices/system/cpu/online")
_NAMES = ("proc/meminfo", "proc/uptime", "proc/pressure/cpu", "sys/devices/system/cpu")


def _tree(root: Path, files: tuple[str, ...]) -> Path:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_every_file_of_proc_and_the_cpu_folder_get_their_view(tmp_path: Path) -> None:
    views, host = _tree(tmp_path / "views", _FILES), _tree(tmp_path / "host", _FILES)
    plan = view_plan(str(views), f"{host}/proc", f"{host}/sys")
    assert plan == tuple(BindReadOnly(f"{views}/{name}", f"{host}/{name}") for name in _NAMES)


@pytest.mark.parametrize(
    ("pinned", "from_it"),
    [
        (Pinned.NONE, set()),
        (Pinned.LIMITS, {"sys/devices/system/cpu"}),
        (Pinned.ALL, {"proc/meminfo", "sys/devices/system/cpu"}),
    ],
)
def test_what_the_pinned_tree_has_is_taken_from_it(
    tmp_path: Path, pinned: Pinned, from_it: set[str]
) -> None:
    """What it lacks comes from the live tree."""
    views, host = _tree(tmp_path / "views", _FILES), _tree(tmp_path / "host", _FILES)
    _tree(views / "self", ("proc/meminfo", "sys/devices/system/cpu/online"))
    plan = view_plan(str(views), f"{host}/proc", f"{host}/sys", pinned=pinned)
    sources = {f"{views}/{'self/' if name in from_it else ''}{name}" for name in _NAMES}
    assert {step.source for step in plan if isinstance(step, BindReadOnly)} == sources


def test_what_the_kernel_does_not_have_gets_no_view(tmp_path: Path) -> None:
    """Without PSI there is no /proc/pressure to mount on, and none may appear."""
    views, host = _tree(tmp_path / "views", _FILES), _tree(tmp_path / "host", _FILES[:1])
    (only,) = view_plan(str(views), f"{host}/proc", f"{host}/nothing")[:1]
    assert only == BindReadOnly(f"{views}/proc/meminfo", f"{host}/proc/meminfo")


def test_views_that_are_not_mounted_are_an_error_and_no_empty_plan(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        view_plan(str(tmp_path))


def test_the_plan_is_told_in_the_order_it_is_done(tmp_path: Path) -> None:
    plan = (*namespace_plan("/p"), BindReadOnly("/v/proc/stat", "/p/stat"))
    assert [step.describe() for step in plan] == [
        "make all mounts slaves of the host's",
        "mount a new proc on /p",
        "bind /v/proc/stat on /p/stat (ro,nosuid,nodev,noexec)",
    ]


def test_a_step_that_fails_is_named(tmp_path: Path) -> None:
    step = BindReadOnly(str(tmp_path / "no"), str(tmp_path / "nowhere"))
    with pytest.raises(OSError, match=r"cannot bind .*/no on .*/nowhere") as caught:
        execute([step])
    assert caught.value.errno in (errno.EPERM, errno.ENOENT)  # EPERM for an ordinary user
