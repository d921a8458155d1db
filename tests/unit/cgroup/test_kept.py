"""Proves: what is kept is what would be made anew, whatever happens to the files it is made of."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from procscope.cgroup.files import (
    ABSENT_SECONDS,
    FIRST_BUFFER_BYTES,
    CgroupDirectory,
    CgroupFiles,
    CgroupGone,
)
from procscope.cgroup.kept import Kept
from tests.unit.cgroup.trees import new_budget

NAMES = ("memory.max", "memory.current", "memory.stat")


class Watched:
    """A value of all of `NAMES` in a cgroup and its parent, and how often it was made."""

    def __init__(self, root: Path, *, max_open: int = 100) -> None:
        self.now = 100.0
        self.made = 0
        self.root = root
        self.own = root / "pod/container"
        self.own.mkdir(parents=True, exist_ok=True)
        self.budget = new_budget(max_open)
        self.files = CgroupFiles(self.budget, lambda: self.now)
        self._directories = [self.files.directory(str(path)) for path in (self.own, root / "pod")]
        self.kept: Kept[str] = Kept(self.files.trace, self.budget, lambda: self.now)
        self.spoils = False

    def fresh(self) -> str:
        return " ".join(repr(one.read(name)) for one in self._directories for name in NAMES)

    def make(self) -> str:
        self.made += 1
        if self.spoils:
            self.files.trace.spoil()
        return self.fresh()

    def get(self, beside: object = None) -> str:
        return self.kept.get(self.make, beside)

    def write(self, name: str, text: str, folder: str = "pod/container") -> None:
        (self.root / folder / name).write_text(text)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    one = Watched(tmp_path)
    for name in NAMES:
        one.write(name, "1\n")
        one.write(name, "2\n", "pod")
    return one


def test_it_is_made_once_as_long_as_nothing_changes(watched: Watched) -> None:
    assert watched.get() == watched.get() == watched.get() == watched.fresh()
    assert watched.made == 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("folder", ["pod", "pod/container"])
def test_a_change_of_any_file_shows_at_once(watched: Watched, name: str, folder: str) -> None:
    watched.get()
    watched.write(name, "3\n", folder)
    assert "3" in watched.get()
    assert watched.get() == watched.fresh()
    assert watched.made == 2


def test_that_nothing_has_changed_is_found_out_without_making_it(watched: Watched) -> None:
    assert watched.kept.unchanged() is None
    value = watched.get()
    assert watched.kept.unchanged() is value
    watched.write("memory.max", "3\n", "pod")
    assert watched.kept.unchanged() is None
    assert watched.made == 1
    assert watched.get() == watched.fresh()
    assert watched.kept.unchanged() is not None
    watched.now += ABSENT_SECONDS
    assert watched.kept.unchanged() is not None, "no file was missing"


def test_a_missing_file_is_looked_for_in_time(watched: Watched) -> None:
    (watched.own / "memory.max").unlink()
    watched.get()
    assert watched.kept.unchanged() is not None
    watched.now += ABSENT_SECONDS
    assert watched.kept.unchanged() is None


def test_other_files_with_the_numbers_of_those_that_were_closed_tell_nothing(
    watched: Watched, tmp_path: Path
) -> None:
    """Of another container's files the texts may even be the same."""
    watched.get()
    watched.files.close()
    for folder in ("other", "other/pod"):
        (tmp_path / folder).mkdir(parents=True)
    others = [
        CgroupDirectory(str(tmp_path / folder), watched.budget) for folder in ("other/pod", "other")
    ]
    for directory, text in zip(others, ("1\n", "2\n"), strict=True):
        for name in NAMES:
            (Path(directory.path) / name).write_text(text)
            directory.read(name)
    watched.write("memory.max", "3\n")
    assert watched.kept.unchanged() is None
    assert watched.get() == watched.fresh()
    assert watched.made == 2
    for directory in others:
        directory.close()


def test_a_change_of_what_is_beside_the_files_makes_it_anew(watched: Watched) -> None:
    watched.get((1, "a"))
    watched.get((1, "a"))
    assert watched.made == 1
    watched.get((2, "a"))
    assert watched.made == 2


def test_a_file_that_appears_is_seen_after_a_while(watched: Watched) -> None:
    (watched.own / "memory.max").unlink()
    watched.files.close()
    assert "ABSENT" in watched.get()
    watched.write("memory.max", "7\n")
    watched.get()
    assert watched.made == 1
    watched.now += ABSENT_SECONDS
    assert "7" in watched.get()


def test_what_is_of_this_moment_only_is_not_kept(watched: Watched) -> None:
    watched.spoils = True
    watched.get()
    watched.get()
    assert watched.made == 2


def test_a_file_that_cannot_be_read_is_tried_again(watched: Watched) -> None:
    (watched.own / "memory.max").unlink()
    (watched.own / "memory.max").mkdir()
    assert "UNREADABLE" in watched.get()
    (watched.own / "memory.max").rmdir()
    watched.write("memory.max", "7\n")
    watched.files.close()
    assert "7" in watched.get()


def test_a_cgroup_that_was_removed_is_gone(watched: Watched) -> None:
    watched.get()
    shutil.rmtree(watched.own)
    # The open files of a removed directory of a plain filesystem would still read.
    watched.files.close()
    with pytest.raises(CgroupGone):
        watched.get()


def test_an_error_leaves_nothing_behind(watched: Watched) -> None:
    def fail() -> str:
        watched.fresh()
        raise ValueError("no")

    watched.get()
    with pytest.raises(ValueError, match="no"):
        watched.kept.get(fail, "else")
    assert watched.get() == watched.fresh()
    assert watched.made == 2


def test_files_that_are_in_use_are_not_those_that_a_tight_budget_closes(tmp_path: Path) -> None:
    watched = Watched(tmp_path, max_open=8)
    for name in NAMES:
        watched.write(name, "1\n")
        watched.write(name, "2\n", "pod")
    watched.get()
    other = tmp_path / "other"
    other.mkdir()
    directory = CgroupDirectory(str(other), watched.budget)
    for number in range(20):
        (other / f"file{number}").write_text("x")
        directory.read(f"file{number}")
        watched.get()
    assert watched.made == 1
    directory.close()


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["pod", "pod/container"]),
        st.sampled_from(NAMES),
        st.sampled_from([0, 1, 2, FIRST_BUFFER_BYTES - 1, FIRST_BUFFER_BYTES, 9000]),
        st.sampled_from(["write", "remove", "wait", "close", "nothing"]),
    ),
    max_size=12,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES, max_open=st.sampled_from([1, 3, 6, 100]))
def test_it_is_always_what_would_be_made_anew(
    tmp_path: Path, changes: list[tuple[str, str, int, str]], max_open: int
) -> None:
    shutil.rmtree(tmp_path / "pod", ignore_errors=True)
    watched = Watched(tmp_path, max_open=max_open)
    for number, (folder, name, length, what) in enumerate(changes):
        if what == "write":
            watched.write(name, f"{number % 10}" * length, folder)
            watched.now += ABSENT_SECONDS
        elif what == "remove":
            (watched.root / folder / name).unlink(missing_ok=True)
            # A file of a cgroup does not go while the cgroup stays and the file is open.
            watched.files.close()
        elif what == "wait":
            watched.now += ABSENT_SECONDS / 2
        elif what == "close":
            watched.files.close()
        assert watched.get() == watched.fresh()
    watched.files.close()
