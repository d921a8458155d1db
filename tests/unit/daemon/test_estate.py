"""The estate: what one daemon leaves is what the next one finds, or it is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.daemon.config import ServeConfig
from procscope.daemon.estate import HANDLES, LEAST_PARTS, SLOTS, STATE, Estate, EstateState
from procscope.daemon.inheritance import ENVIRONMENT_NAME, Inheritance
from procscope.errors import ProcscopeError
from procscope.fuse.negotiation import ConnectionState
from procscope.values import replace

CONNECTION = ConnectionState(7, 41, 1, 3, 4096, 1 << 20, 1 << 17, 1)
CONFIG = ServeConfig(mountpoint="/mnt")
LEFT = EstateState("/mnt", CONFIG.state_directory, "0:52", CONNECTION)


@pytest.fixture
def estate() -> Iterator[Estate]:
    one = Estate.create(os.open(os.devnull, os.O_RDWR), LEFT, 2)
    yield one
    one.close()


def copies(estate: Estate) -> dict[str, int]:
    return {name: os.dup(fd) for name, fd in estate.descriptors.items()}


def test_a_successor_finds_it_as_it_was(estate: Estate) -> None:
    estate.slots.worker(1).set_owner(4711, 99)
    estate.handles.adopt_part(0)
    handle = estate.handles.put(b"open file")
    later = Estate.adopt(copies(estate))
    assert later.state == LEFT
    assert later.slots.worker(1).owner() == (4711, 99)
    assert later.handles.get(handle) == b"open file"
    later.close()


def test_there_is_room_for_more_workers_later(estate: Estate) -> None:
    assert estate.slots.workers == estate.handles.parts == LEAST_PARTS


def test_files_in_an_unknown_layout_are_given_up_and_nothing_else(estate: Estate) -> None:
    fds = copies(estate)
    os.close(fds[HANDLES])
    fds[HANDLES] = os.memfd_create("other")
    later = Estate.adopt(fds)
    later.handles.adopt_part(0)
    assert later.handles.put(b"new") != 0
    os.close(fds[HANDLES])
    later.close()


@pytest.mark.parametrize("name", [SLOTS, STATE, "fuse"])
def test_without_a_part_of_it_there_is_none(estate: Estate, name: str) -> None:
    fds = copies(estate)
    os.close(fds.pop(name))
    with pytest.raises(ProcscopeError, match=f"{name} is missing"):
        Estate.adopt(fds)
    for fd in fds.values():
        os.close(fd)


@pytest.mark.parametrize("name", [SLOTS, STATE])
def test_what_is_something_else_is_refused(estate: Estate, name: str) -> None:
    fds = copies(estate)
    os.ftruncate(fds[HANDLES], os.fstat(fds[HANDLES]).st_size)
    os.close(fds[name])
    fds[name] = os.memfd_create("garbage")
    os.write(fds[name], b"garbage")
    with pytest.raises(ProcscopeError):
        Estate.adopt(fds)
    for fd in fds.values():
        os.close(fd)


def test_the_state_is_of_one_mountpoint_and_one_run_directory(estate: Estate) -> None:
    assert estate.serves(CONFIG)
    assert not estate.serves(replace(CONFIG, mountpoint="/other"))
    assert not estate.serves(replace(CONFIG, run_directory="/other"))


def test_the_state_survives_its_text() -> None:
    assert EstateState.from_json(LEFT.to_json()) == LEFT


@given(
    st.sampled_from(["version", "mountpoint", "state_directory", "device", "connection"]),
    st.none() | st.integers() | st.text() | st.lists(st.integers()),
)
def test_a_member_of_another_kind_is_refused_or_read(name: str, value: object) -> None:
    stored = json.loads(LEFT.to_json()) | {name: value}
    try:
        state = EstateState.from_json(json.dumps(stored))
    except ProcscopeError:
        return
    assert isinstance(value, str)
    assert json.loads(state.to_json())[name] == value


@given(st.text())
def test_any_text_is_a_state_or_refused(text: str) -> None:
    with pytest.raises(ProcscopeError, match="cannot be used"):
        EstateState.from_json(text)


def test_what_is_inherited_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fd = os.open(os.devnull, os.O_RDONLY)
    environment = Inheritance({"lock": fd}, 3).to_environment()
    assert os.get_inheritable(fd)
    monkeypatch.setenv(ENVIRONMENT_NAME, environment[ENVIRONMENT_NAME])
    assert vars(Inheritance.from_environment()) == vars(Inheritance({"lock": fd}, 3))
    assert not os.get_inheritable(fd)
    assert vars(Inheritance.from_environment()) == vars(Inheritance())
    os.close(fd)


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"fds": {"a": "x"}}', '{"fds": {"a": 100000}}'])
def test_garbage_is_not_inherited(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(ENVIRONMENT_NAME, text)
    assert vars(Inheritance.from_environment()) == vars(Inheritance())
