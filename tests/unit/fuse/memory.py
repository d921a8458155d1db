"""A small filesystem in memory, requests to send to it, and readers for the replies."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from errno import EISDIR, ENOENT, ENOTDIR
from typing import Final

from procscope.fuse import opcodes, wire
from procscope.fuse.filesystem import Attributes, Caller, DirEntry, Entry, Opened, StatFs
from procscope.fuse.negotiation import ConnectionState, negotiate
from procscope.fuse.protocol import Session
from procscope.fuse.replies import Reply
from procscope.fuse.wire import InitFlag, Layout
from procscope.ids import FileHandle, NodeId, Pid

ROOT: Final = NodeId(1)
FILE: Final = NodeId(2)
LINK: Final = NodeId(3)
DIRECTORY: Final = NodeId(4)
MISSING: Final = NodeId(99)

CONTENT: Final = b"".join(b"line %d\n" % number for number in range(40))
TARGET: Final = b"../file"
UNIQUE: Final = 0x1122334455667788

MODE_OF: Final = {
    ROOT: stat.S_IFDIR | 0o755,
    FILE: stat.S_IFREG | 0o444,
    LINK: stat.S_IFLNK | 0o777,
    DIRECTORY: stat.S_IFDIR | 0o555,
}


@dataclass
class MemoryFilesystem:
    """A file, a link, and a directory of files with `names`; `calls` are what was asked for."""

    names: Sequence[bytes] = ()
    content: bytes = CONTENT
    calls: list[tuple[object, ...]] = field(default_factory=list)

    def lookup(self, caller: Caller, parent: NodeId, name: bytes) -> Entry:
        self.calls.append(("lookup", caller, parent, name))
        children = {b"file": FILE, b"link": LINK, b"directory": DIRECTORY}
        if parent != ROOT or name not in children:
            raise FileNotFoundError(ENOENT, "no such name")
        return Entry(attributes_of(children[name]), entry_valid_ns=2_500_000_000)

    def getattr(self, caller: Caller, nodeid: NodeId, fh: FileHandle | None) -> Attributes:
        self.calls.append(("getattr", caller, nodeid, fh))
        return attributes_of(nodeid)

    def access(self, caller: Caller, nodeid: NodeId, mask: int) -> None:
        self.calls.append(("access", caller, nodeid, mask))
        attributes_of(nodeid)

    def readlink(self, caller: Caller, nodeid: NodeId) -> bytes:
        return TARGET

    def open(self, caller: Caller, nodeid: NodeId, flags: int) -> Opened:
        self.calls.append(("open", caller, nodeid, flags))
        if nodeid != FILE:
            raise IsADirectoryError(EISDIR, "not a file")
        return FileHandle(77), wire.FOPEN_DIRECT_IO | wire.FOPEN_NOFLUSH

    def read(
        self, pid: Pid, unique: int, nodeid: NodeId, fh: FileHandle, offset: int, size: int
    ) -> bytes | memoryview:
        self.calls.append(("read", pid, unique, nodeid, fh, offset, size))
        return memoryview(self.content)[offset : offset + size]

    def release(self, nodeid: NodeId, fh: FileHandle) -> None:
        self.calls.append(("release", nodeid, fh))

    def opendir(self, caller: Caller, nodeid: NodeId) -> Opened:
        if nodeid not in (ROOT, DIRECTORY):
            raise NotADirectoryError(ENOTDIR, "not a directory")
        return FileHandle(0), 0

    def readdir(
        self, caller: Caller, nodeid: NodeId, fh: FileHandle, offset: int, plus: bool
    ) -> Iterable[DirEntry]:
        self.calls.append(("readdir", caller, nodeid, fh, offset, plus))
        return [self._dir_entry(number, plus) for number in range(len(self.names))][offset:]

    def _dir_entry(self, number: int, plus: bool) -> DirEntry:
        nodeid = NodeId(1000 + number)
        inode = Attributes(nodeid, stat.S_IFREG | 0o444)
        return DirEntry(nodeid, 8, self.names[number], Entry(inode) if plus and number else None)

    def releasedir(self, caller: Caller, nodeid: NodeId, fh: FileHandle) -> None:
        self.calls.append(("releasedir", caller, nodeid, fh))

    def statfs(self, caller: Caller, nodeid: NodeId) -> StatFs:
        return StatFs(files=6)

    def forget(self, nodeid: NodeId, nlookup: int) -> None:
        self.calls.append(("forget", nodeid, nlookup))


class FailingFilesystem(MemoryFilesystem):
    """Every method that the tests call on it raises `error`."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def lookup(self, caller: Caller, parent: NodeId, name: bytes) -> Entry:
        raise self.error

    def open(self, caller: Caller, nodeid: NodeId, flags: int) -> Opened:
        raise self.error

    def forget(self, nodeid: NodeId, nlookup: int) -> None:
        raise self.error


def attributes_of(nodeid: NodeId) -> Attributes:
    """The attributes of one of the fixed inodes; OSError(ENOENT) for others."""
    if nodeid not in MODE_OF:
        raise FileNotFoundError(ENOENT, "no such inode")
    return Attributes(
        nodeid,
        MODE_OF[nodeid],
        nlink=3,
        uid=10,
        gid=20,
        size_bytes=1025,
        mtime_ns=1_700_000_000_123_456_789,
        atime_ns=-1,
        rdev=0x501,
        blksize=512,
        valid_ns=1_000_000_007,
    )


def request(
    opcode: int,
    body: bytes = b"",
    *,
    nodeid: int = ROOT,
    unique: int = UNIQUE,
    length: int | None = None,
    pid: int = 4321,
) -> memoryview:
    """A request as read(2) on /dev/fuse gives it; `length` other than its own is a lie."""
    size = wire.fuse_in_header.size + len(body)
    header = wire.fuse_in_header.pack(
        len=size if length is None else length,
        opcode=opcode,
        unique=unique,
        nodeid=nodeid,
        uid=1000,
        gid=100,
        pid=pid,
    )
    return memoryview(header + body)


def init_request(
    *,
    major: int = 7,
    minor: int = 45,
    flags: int = (1 << 43) - 1,
    max_readahead: int = 131072,
    body_bytes: int = wire.fuse_init_in.size,
) -> memoryview:
    """INIT from a kernel that offers `flags`; older kernels send a shorter body."""
    body = wire.fuse_init_in.pack(
        major=major,
        minor=minor,
        max_readahead=max_readahead,
        flags=flags & 0xFFFFFFFF,
        flags2=flags >> 32,
    )
    return request(opcodes.FUSE_INIT, body[:body_bytes], nodeid=0)


def state(flags: int = (1 << 43) - 1) -> ConnectionState:
    """What is negotiated with a kernel that offers `flags`."""
    agreed = negotiate(init_request(flags=flags | InitFlag.FUSE_INIT_EXT))[1]
    assert agreed is not None
    return agreed


def session(filesystem: MemoryFilesystem | None = None) -> Session:
    """A session on a newest kernel's connection."""
    return Session(filesystem or MemoryFilesystem(), state())


def read_request(
    offset: int,
    size: int,
    *,
    opcode: int = opcodes.FUSE_READ,
    nodeid: NodeId = FILE,
    read_flags: int = wire.FUSE_READ_LOCKOWNER,
) -> memoryview:
    """READ as read(2) makes it, READDIR or READDIRPLUS."""
    body = wire.fuse_read_in.pack(fh=77, offset=offset, size=size, read_flags=read_flags)
    return request(opcode, body, nodeid=nodeid)


def whole(reply: Reply) -> bytes:
    """A reply's bytes as the kernel gets them; its header must be right."""
    assert reply is not None
    joined = reply if isinstance(reply, bytes) else b"".join(reply)
    header = wire.fuse_out_header.unpack(joined)
    assert header["len"] == len(joined)
    assert -512 < header["error"] <= 0
    if header["error"]:
        assert len(joined) == wire.fuse_out_header.size
    return joined


def payload(reply: Reply, unique: int = UNIQUE) -> bytes:
    """What follows the header of a reply that is a success."""
    joined = whole(reply)
    header = wire.fuse_out_header.unpack(joined)
    assert (header["error"], header["unique"]) == (0, unique)
    return joined[wire.fuse_out_header.size :]


def errno_in(reply: Reply) -> int:
    """The errno of a reply, 0 for success."""
    return -wire.fuse_out_header.unpack(whole(reply))["error"]


def fields(layout: Layout, reply: Reply) -> dict[str, int]:
    """The members of the struct that makes up a reply."""
    body = payload(reply)
    assert len(body) == layout.size
    return layout.unpack(body)
