"""mountinfo: read back whatever a mount may be called, and survive what is no mountinfo."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from procscope.linux.mountinfo import Mount, parse_mountinfo, read_mountinfo, unescape

_ESCAPED = " \t\n\\#"
"""What `mangle()` in the kernel's `fs/proc_namespace.c` escapes."""

_TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1)
_OPTION = st.text(st.characters(exclude_characters="\0,", codec="utf-8"), min_size=1)


def _mangle(text: str) -> str:
    return "".join(f"\\{ord(char):03o}" if char in _ESCAPED else char for char in text)


def _line(mount: Mount) -> str:
    head = [str(mount.mount_id), str(mount.parent_id), mount.device]
    head += [_mangle(mount.root), _mangle(mount.mount_point), ",".join(mount.mount_options)]
    tail = [_mangle(mount.fstype), _mangle(mount.source)]
    tail.append(",".join(_mangle(option) for option in mount.super_options))
    return f"{' '.join((*head, *mount.optional))} - {' '.join(tail)}\n"


_MOUNTS = st.builds(
    Mount,
    mount_id=st.integers(0, 2**31 - 1),
    parent_id=st.integers(0, 2**31 - 1),
    device=st.tuples(st.integers(0, 4095), st.integers(0, 2**20 - 1)).map(
        lambda pair: f"{pair[0]}:{pair[1]}"
    ),
    root=_TEXT.map(lambda text: "/" + text),
    mount_point=_TEXT.map(lambda text: "/" + text),
    mount_options=st.sampled_from([("rw",), ("ro", "nosuid", "relatime")]),
    fstype=_TEXT,
    source=_TEXT,
    super_options=st.lists(_OPTION, min_size=1).map(tuple),
    optional=st.lists(st.sampled_from(["shared:1", "master:2", "propagate_from:3"])).map(tuple),
)


@given(st.lists(_MOUNTS))
def test_any_mount_is_read_back(mounts: list[Mount]) -> None:
    """Names may hold carriage returns and Unicode line separators, which end no line here."""
    text = "".join(_line(mount) for mount in mounts)
    assert list(parse_mountinfo(text)) == mounts


@given(_MOUNTS, _MOUNTS, st.text(st.characters(exclude_characters="\n")))
def test_a_line_that_is_none_does_not_hide_its_neighbours(
    first: Mount, last: Mount, garbage: str
) -> None:
    mounts = list(parse_mountinfo(f"{_line(first)}{garbage}\n{_line(last)}"))
    assert mounts[0] == first
    assert mounts[-1] == last


@given(st.text())
def test_any_text_is_survived(text: str) -> None:
    for mount in parse_mountinfo(text):
        assert mount.mount_id >= 0


def test_a_number_in_another_script_is_no_mount_id() -> None:
    assert not list(parse_mountinfo("² 1 0:1 / / rw - tmpfs tmpfs rw\n"))
    assert not list(parse_mountinfo(f"{'9' * 5000} 1 0:1 / / rw - tmpfs tmpfs rw\n"))


@given(st.text())
def test_unescape_undoes_the_kernels_escape(text: str) -> None:
    assert unescape(_mangle(text)) == text


def test_a_file_is_read_without_changing_its_line_ends(tmp_path: Path) -> None:
    """Text mode would turn the carriage return of a mount point into a line end."""
    (tmp_path / "self").mkdir()
    line = b"1 0 0:1 / /a\rb\xff rw - tmpfs none rw\n"
    (tmp_path / "self" / "mountinfo").write_bytes(line)
    (mount,) = read_mountinfo(str(tmp_path))
    assert mount.mount_point == "/a\rb\udcff"


def test_the_mounts_of_this_process_are_read() -> None:
    mounts = {mount.mount_point: mount for mount in read_mountinfo()}
    assert mounts["/proc"].fstype == "proc"
