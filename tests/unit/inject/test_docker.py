"""Proves: the options mount what a runtime lets be mounted, and everything else is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.errors import ProcscopeError
from procscope.inject.docker import CPU_FOLDER, DEFAULT_FILES, MOUNTABLE, volume_options
from procscope.tree.sources import Pinned, available

VIEWS = "/var/lib/procscope"


def targets(options: tuple[str, ...]) -> list[str]:
    assert options[::2] == ("-v",) * (len(options) // 2)
    volumes = [volume.split(":") for volume in options[1::2]]
    assert all(source == f"{VIEWS}{target}" for source, target, _ in volumes)
    assert {mode for *_, mode in volumes} <= {"ro"}
    return [target for _, target, _ in volumes]


def test_the_default_is_all_that_a_container_may_read() -> None:
    assert targets(volume_options(VIEWS)) == [f"/{name}" for name in DEFAULT_FILES]
    assert f"/{CPU_FOLDER}" in targets(volume_options(VIEWS))
    # Only root may read it, and in a container it says nothing.
    assert "/proc/slabinfo" not in targets(volume_options(VIEWS))


@pytest.mark.parametrize(
    "form", ["meminfo", "proc/meminfo", "/proc/meminfo", "/proc/meminfo/", "meminfo/"]
)
def test_a_file_may_be_named_with_or_without_its_folder(form: str) -> None:
    assert volume_options(VIEWS, [form]) == ("-v", f"{VIEWS}/proc/meminfo:/proc/meminfo:ro")


def test_every_file_that_is_offered_is_taken() -> None:
    assert targets(volume_options(VIEWS, MOUNTABLE)) == [f"/{name}" for name in MOUNTABLE]


def test_a_file_that_is_named_twice_is_mounted_once() -> None:
    """Docker refuses a second mount at the same place."""
    assert targets(volume_options(VIEWS, ["stat", "meminfo", "/proc/stat"])) == [
        "/proc/stat",
        "/proc/meminfo",
    ]


@pytest.mark.parametrize(
    "name", ["", "/", "proc", "pressure/cpu", "proc/proc/meminfo", "../meminfo", "sys", "x y"]
)
def test_what_cannot_be_mounted_is_refused_with_what_can(name: str) -> None:
    with pytest.raises(ProcscopeError) as caught:
        volume_options(VIEWS, [name])
    assert repr(name) in caught.value.message
    assert "proc/meminfo" in caught.value.hint


@pytest.mark.parametrize("mountpoint", ["/a b", "/a:b", "/a\nb", "/a\tb"])
def test_a_mountpoint_that_the_shell_or_docker_would_split_is_refused(mountpoint: str) -> None:
    with pytest.raises(ProcscopeError, match="without spaces and colons"):
        volume_options(mountpoint)


@given(st.lists(st.sampled_from(MOUNTABLE) | st.text(max_size=9), max_size=5))
def test_any_list_gives_options_for_one_shell_word_each_or_is_refused(files: list[str]) -> None:
    try:
        options = volume_options(VIEWS, files)
    except ProcscopeError:
        assert not set(files) <= set(MOUNTABLE)
        return
    assert " ".join(options).split() == list(options)
    assert len(set(targets(options))) == len(targets(options)) <= len(files)


@pytest.mark.parametrize(
    ("pinned", "cpuinfo", "meminfo"),
    [
        (Pinned.NONE, "proc", "proc"),
        (Pinned.LIMITS, "self/proc", "proc"),
        (Pinned.ALL, "self/proc", "self/proc"),
    ],
)
def test_some_are_taken_from_the_pinned_tree(pinned: Pinned, cpuinfo: str, meminfo: str) -> None:
    options = volume_options(VIEWS, ["cpuinfo", "meminfo"], pinned)
    assert options[1] == f"{VIEWS}/{cpuinfo}/cpuinfo:/proc/cpuinfo:ro"
    assert options[3] == f"{VIEWS}/{meminfo}/meminfo:/proc/meminfo:ro"


def test_without_a_pinned_tree_nothing_is_taken_from_it(tmp_path: Path) -> None:
    assert available(str(tmp_path), Pinned.ALL) is Pinned.NONE
    (tmp_path / "self").mkdir()
    assert available(str(tmp_path), Pinned.LIMITS) is Pinned.NONE
    (tmp_path / "self/proc").symlink_to("../proc")
    assert available(str(tmp_path), Pinned.LIMITS) is Pinned.LIMITS
