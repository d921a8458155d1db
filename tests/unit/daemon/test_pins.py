"""Proves: a pin has one number for all workers and all times, and nothing but its own name."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from procscope.containers.container import Container, container_of_paths
from procscope.daemon import pins
from procscope.daemon.pins import PinStore
from procscope.ids import CgroupPath


def container(name: str) -> Container:
    found = container_of_paths({"": CgroupPath(f"/{name}")}, runtime="oci", id_=name)
    assert found is not None
    return found


def store(root: Path) -> PinStore:
    return PinStore(str(root / "pins"), str(root / "records"))


def test_every_worker_knows_the_same_pin(tmp_path: Path) -> None:
    made = store(tmp_path).of_lifetime(container("one"), "one-1")
    assert made is not None
    later = store(tmp_path)
    assert later.of_number(made.number) == made
    assert later.of_name(made.name) == made
    assert later.of_lifetime(container("one"), "one-1") == made
    assert store(tmp_path).of_lifetime(container("one"), "one-1") == made
    other = later.of_lifetime(container("one"), "one-2")
    assert other is not None
    assert other.number != made.number


def test_of_two_that_want_one_number_each_has_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pins, "_NUMBERS", 4)
    made = [store(tmp_path).of_lifetime(container(str(i)), f"{i}-1") for i in range(4)]
    assert {pin.number for pin in made if pin is not None} == {0, 1, 2, 3}
    again = [store(tmp_path).of_lifetime(container(str(i)), f"{i}-1") for i in range(4)]
    assert again == made
    assert store(tmp_path).of_lifetime(container("5"), "5-1") is None


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b'{"name": 1}', b"\xff", b"9" * 5000])
def test_a_file_that_is_something_else_is_no_pin(tmp_path: Path, text: bytes) -> None:
    made = store(tmp_path).of_lifetime(container("one"), "one-1")
    assert made is not None
    (tmp_path / "pins" / f"{made.number:05x}").write_bytes(text)
    assert store(tmp_path).of_number(made.number) is None
    other = store(tmp_path).of_lifetime(container("one"), "one-1")
    assert other is not None
    assert other.number != made.number


def test_a_name_is_not_guessed_by_its_number(tmp_path: Path) -> None:
    made = store(tmp_path).of_lifetime(container("one"), "one-1")
    assert made is not None
    for name in (f"{made.number:05x}-{'0' * 32}", made.name.upper(), f"{made.name}0", "", ".."):
        assert name == made.name or store(tmp_path).of_name(name) is None


def test_without_a_folder_nothing_is_pinned(tmp_path: Path) -> None:
    (tmp_path / "pins").write_text("")
    assert store(tmp_path).of_lifetime(container("one"), "one-1") is None
    assert store(tmp_path).of_number(1) is None
    store(tmp_path).sweep()


def test_those_without_a_record_are_forgotten_after_a_while(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / "records/here-1").touch()
    here = store(tmp_path).of_lifetime(container("here"), "here-1")
    gone = store(tmp_path).of_lifetime(container("gone"), "gone-1")
    new = store(tmp_path).of_lifetime(container("new"), "new-1")
    assert here is not None
    assert gone is not None
    assert new is not None
    (tmp_path / "pins/new-1-1").touch()
    long_ago_s = time.time() - 3600
    for name in (f"{gone.number:05x}", f"{here.number:05x}", "new-1-1"):
        os.utime(tmp_path / "pins" / name, (long_ago_s, long_ago_s))
    store(tmp_path).sweep()
    left = {int(path.name, 16) for path in (tmp_path / "pins").iterdir()}
    assert left == {here.number, new.number}
