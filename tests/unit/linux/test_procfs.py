"""/proc/PID files: whatever a task calls itself, its lines are not taken for the kernel's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.ids import CgroupPath
from procscope.linux.procfs import UNIFIED, parse_cgroups, parse_nspid, parse_task_stat

_REST = b"4 3 2 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0"


def _stat(comm: bytes, state: bytes, start_ticks: int) -> bytes:
    return b"7 (%s) %s %s %d 123 456\n" % (comm, state, _REST[:-2], start_ticks)


@given(st.binary(max_size=15), st.sampled_from(list("RSDTtZXI")), st.integers(0, 2**63))
def test_state_and_start_are_found_whatever_the_comm(
    comm: bytes, state: str, start_ticks: int
) -> None:
    stat = parse_task_stat(_stat(comm, state.encode(), start_ticks))
    assert (stat.state, stat.start_ticks) == (state, start_ticks)


@given(st.binary())
def test_any_bytes_are_a_stat_or_a_value_error(stat: bytes) -> None:
    try:
        assert parse_task_stat(stat).start_ticks >= 0
    except ValueError:
        return


@pytest.mark.parametrize("start", [b"x", b"-1", b"1_0", b"", b"9" * 5000])
def test_a_start_that_is_no_number_is_a_value_error(start: bytes) -> None:
    line = b"7 (a) R %s %s\n" % (_REST[:-2], start)
    with pytest.raises(ValueError, match=r"not a stat line|4300"):
        parse_task_stat(line)


@pytest.mark.parametrize("state", [b"RS", b"\x1c\0h"])
def test_a_state_of_more_than_one_letter_is_a_value_error(state: bytes) -> None:
    with pytest.raises(ValueError, match="not a stat line"):
        parse_task_stat(b"7 (a) %s %s 5\n" % (state, _REST[:-2]))


def test_the_stat_of_this_process_is_read() -> None:
    stat = parse_task_stat(Path("/proc/self/stat").read_bytes())
    assert stat.state == "R"
    assert stat.start_ticks > 0


_NAMES = st.text(
    st.characters(exclude_characters="\0\n/", codec="utf-8"), min_size=1, max_size=20
).filter(lambda name: not name.endswith(" (deleted)"))
_PATHS = st.lists(_NAMES, max_size=4).map(lambda names: "/" + "/".join(names))


@given(st.dictionaries(st.sampled_from(["memory", "cpu", "cpuset", "name=systemd", ""]), _PATHS))
def test_every_hierarchys_path_is_read_back(paths: dict[str, str]) -> None:
    """A cgroup's name may hold colons, spaces, and every line end but the line feed."""
    text = "".join(f"{number}:{name}:{path}\n" for number, (name, path) in enumerate(paths.items()))
    assert parse_cgroups(text) == paths


def test_controllers_of_one_hierarchy_get_an_entry_each() -> None:
    paths = parse_cgroups("4:cpu,cpuacct:/a\n0::/b (deleted)\n")
    assert paths == {"cpu": "/a", "cpuacct": "/a", UNIFIED: CgroupPath("/b")}


@given(st.text())
def test_any_text_is_survived(text: str) -> None:
    assert all(path.startswith("/") for path in parse_cgroups(text).values())
    assert all(pid >= 0 for pid in parse_nspid(text))


@given(st.lists(st.integers(0, 2**22), min_size=1), _NAMES)
def test_the_pids_of_every_namespace_are_read(pids: list[int], name: str) -> None:
    numbers = "\t".join(map(str, pids))
    assert parse_nspid(f"Name:\t{name}\nTgid:\t1\nNSpid:\t{numbers}\nNSpgid:\t0\n") == tuple(pids)


@pytest.mark.parametrize("end", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_a_task_cannot_pretend_to_another_pid_by_its_name(end: str) -> None:
    """The kernel escapes the line feed in a comm, and only that (proc_task_name())."""
    assert parse_nspid(f"Name:\ta{end}NSpid:\t1\nNSpid:\t70\t5\n") == (70, 5)


@pytest.mark.parametrize("value", ["²", "a", "1 b", "-1", "9" * 5000])
def test_a_garbled_line_is_as_good_as_none(value: str) -> None:
    assert parse_nspid(f"NSpid:\t{value}\n") == ()


def test_this_process_has_a_pid_in_its_own_namespace() -> None:
    with open("/proc/self/status", newline="\n", encoding="utf-8") as status:
        assert parse_nspid(status.read())[-1] == os.getpid()
