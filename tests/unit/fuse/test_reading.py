"""Proves that files and directories come out whole, whatever sizes they are read in."""

from __future__ import annotations

from errno import EINVAL

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.fuse import opcodes, wire
from procscope.fuse.protocol import Session
from procscope.ids import FileHandle, NodeId, Pid
from tests.unit.fuse.memory import (
    CONTENT,
    DIRECTORY,
    MemoryFilesystem,
    errno_in,
    payload,
    read_request,
    session,
)

NAMES = st.lists(st.binary(min_size=1, max_size=255), max_size=40, unique=True)


@given(st.lists(st.integers(1, 100), min_size=1))
def test_any_chunking_of_reads_gives_the_same_whole(sizes: list[int]) -> None:
    """The sizes are repeated until the file ends."""
    server = session()
    got = b""
    while chunk := payload(server.handle(read_request(len(got), sizes[len(got) % len(sizes)]))):
        got += chunk
    assert got == CONTENT


@pytest.mark.parametrize("offset", [len(CONTENT), 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_reading_at_the_end_and_beyond_is_empty(offset: int) -> None:
    """End of file, not an error, as for any file."""
    assert payload(session().handle(read_request(offset, 4096))) == b""


def test_reading_nothing_is_empty() -> None:
    """Size 0 is answered without the filesystem."""
    filesystem = MemoryFilesystem()
    assert payload(session(filesystem).handle(read_request(0, 0))) == b""
    assert filesystem.calls == []


def test_a_read_is_no_larger_than_what_was_negotiated() -> None:
    """A request for 4 GiB must not make a filesystem allocate them."""
    filesystem = MemoryFilesystem()
    session(filesystem).handle(read_request(5, (1 << 32) - 1))
    assert filesystem.calls[0][-2:] == (5, 1 << 20)


def test_more_than_was_asked_for_is_cut() -> None:
    """The kernel would refuse such a reply, and its reader get EIO."""

    class Generous(MemoryFilesystem):
        def read(
            self, pid: Pid, unique: int, nodeid: NodeId, fh: FileHandle, offset: int, size: int
        ) -> bytes | memoryview:
            return self.content

    assert payload(session(Generous()).handle(read_request(0, 7))) == CONTENT[:7]


def _listing(server: Session, size: int, *, plus: bool) -> list[tuple[int, bytes, int]]:
    """(offset, name, nodeid of the entry) of a directory, read in buffers of `size`."""
    opcode = opcodes.FUSE_READDIRPLUS if plus else opcodes.FUSE_READDIR
    listed: list[tuple[int, bytes, int]] = []
    while True:
        offset = listed[-1][0] if listed else 0
        asked = read_request(offset, size, opcode=opcode, nodeid=DIRECTORY)
        body = payload(server.handle(asked))
        assert len(body) <= size
        if not body:
            return listed
        listed += _records(body, plus=plus)


def _records(body: bytes, *, plus: bool) -> list[tuple[int, bytes, int]]:
    records = []
    position = 0
    while position < len(body):
        assert position % 8 == 0
        nodeid = 0
        if plus:
            nodeid = wire.fuse_entry_out.unpack(body, position)["nodeid"]
            position += wire.fuse_entry_out.size
        dirent = wire.fuse_dirent.unpack(body, position)
        position += wire.fuse_dirent.size
        name = body[position : position + dirent["namelen"]]
        padding = -dirent["namelen"] % 8
        position += dirent["namelen"] + padding
        assert body[position - padding : position] == bytes(padding)
        assert (dirent["ino"], dirent["type"]) == (999 + dirent["off"], 8)
        records.append((dirent["off"], name, nodeid))
    assert position == len(body)
    return records


@given(NAMES, st.integers(280, 5000))
def test_readdir_with_any_buffer_gives_every_entry_once(names: list[bytes], size: int) -> None:
    """280 bytes hold the longest record: 24, and a name of 255 rounded up to 256."""
    listed = _listing(session(MemoryFilesystem(names=names)), size, plus=False)
    assert [name for _, name, _ in listed] == names
    assert [offset for offset, _, _ in listed] == list(range(1, len(names) + 1))


@given(NAMES, st.integers(408, 5000))
def test_readdirplus_with_any_buffer_gives_every_entry_once(names: list[bytes], size: int) -> None:
    """The same with 128 bytes more per record; the first entry has no inode, so nodeid 0."""
    listed = _listing(session(MemoryFilesystem(names=names)), size, plus=True)
    assert [name for _, name, _ in listed] == names
    assert [node for _, _, node in listed] == [0, *range(1001, 1000 + len(names))][: len(names)]


@pytest.mark.parametrize(("opcode", "size"), [(28, 31), (44, 159), (28, 0), (44, 0)])
def test_a_buffer_too_small_for_one_entry_is_einval(opcode: int, size: int) -> None:
    """As getdents64(2): an empty answer would be the end of the directory."""
    server = session(MemoryFilesystem(names=[b"12345678"]))
    asked = read_request(0, size, opcode=opcode, nodeid=DIRECTORY)
    assert errno_in(server.handle(asked)) == EINVAL


@pytest.mark.parametrize("offset", [1, 2, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_a_directory_ends_at_its_end_and_beyond(offset: int) -> None:
    """seekdir(3) to anywhere."""
    server = session(MemoryFilesystem(names=[b"only"]))
    asked = read_request(offset, 4096, opcode=opcodes.FUSE_READDIR, nodeid=DIRECTORY)
    assert payload(server.handle(asked)) == b""


def test_a_read_into_the_page_cache_is_refused() -> None:
    """The cache is the inode's, the content is the reader's: one would get the other's."""
    assert errno_in(session().handle(read_request(0, 10, read_flags=0))) == EINVAL
