"""Why there is no user namespace: the message names the switch that forbids it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from procscope.sandbox.namespaces import can_unshare, what_forbids_user_namespaces


def _switches(proc: Path, **values: str) -> str:
    permitting = {
        "user/max_user_namespaces": "15000",
        "kernel/unprivileged_userns_clone": "1",
        "kernel/apparmor_restrict_unprivileged_userns": "0",
    }
    for name, value in (
        permitting | {key.replace("__", "/"): v for key, v in values.items()}
    ).items():
        path = proc / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return str(proc)


@pytest.mark.parametrize(
    ("switch", "value", "number", "advice"),
    [
        ("user__max_user_namespaces", "0", errno.ENOSPC, "user.max_user_namespaces=15000"),
        ("user__max_user_namespaces", "1", errno.ENOSPC, "raise sysctl user.max_user_namespaces"),
        ("kernel__unprivileged_userns_clone", "0", errno.EPERM, "unprivileged_userns_clone=1"),
        (
            "kernel__apparmor_restrict_unprivileged_userns",
            "1",
            errno.EACCES,
            "apparmor_restrict_unprivileged_userns=0",
        ),
    ],
)
def test_the_switch_that_forbids_is_named(
    tmp_path: Path, switch: str, value: str, number: int, advice: str
) -> None:
    proc = _switches(tmp_path, **{switch: value})
    assert advice in what_forbids_user_namespaces(number, proc)


def test_without_a_switch_the_other_causes_are_named(tmp_path: Path) -> None:
    assert "seccomp" in what_forbids_user_namespaces(errno.EPERM, _switches(tmp_path))
    assert "seccomp" in what_forbids_user_namespaces(errno.EPERM, str(tmp_path / "no"))
    assert "CONFIG_USER_NS" in what_forbids_user_namespaces(errno.EINVAL, str(tmp_path))


@pytest.mark.parametrize(
    ("caps", "expected"),
    [("000001ffffffffff", True), ("0000000000200000", True), ("00000000a80425fb", False)],
)
def test_the_capability_decides_and_not_the_uid(tmp_path: Path, caps: str, expected: bool) -> None:
    """Root of a container often lacks CAP_SYS_ADMIN."""
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "status").write_text(f"Name:\ta\nCapEff:\t{caps}\n")
    assert can_unshare(str(tmp_path)) is expected
