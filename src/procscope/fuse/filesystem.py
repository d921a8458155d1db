"""What the protocol asks of the filesystem behind it.

A `Filesystem` refuses by raising `OSError` with an errno. A name that does not exist is
`OSError(ENOENT)`: negative entries are never cached, so that a name can appear at any time.
Whatever would change something is refused before it gets here.

What passes with each request is a named tuple: one is made, compared and hashed in a fraction of
the time that a frozen class takes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol, TypeAlias

from procscope.ids import FileHandle, NodeId, Pid
from procscope.values import frozen


class Caller(NamedTuple):
    """Who made a request, as `struct fuse_in_header` tells.

    `pid` is the calling *thread*, in the PID namespace of the process that mounted; 0 when it is
    not visible there.
    `uid` and `gid` are 0xFFFFFFFF where FUSE_ALLOW_IDMAP was negotiated (Linux 6.12+): the kernel
    then checks permissions itself and does not tell.
    `unique` numbers the request on its connection; a request that the kernel sends again has the
    same number.
    """

    pid: Pid
    uid: int
    gid: int
    unique: int


class Attributes(NamedTuple):
    """The inode attributes that stat(2) shows, and how long the kernel may cache them.

    `mode` has the S_IF* type. `atime_ns` and `ctime_ns` left out are `mtime_ns`.
    `rdev` is as os.makedev() gives it.
    """

    nodeid: NodeId
    mode: int
    nlink: int = 1
    uid: int = 0
    gid: int = 0
    size_bytes: int = 0
    mtime_ns: int = 0
    atime_ns: int | None = None
    ctime_ns: int | None = None
    rdev: int = 0
    blksize: int = 4096
    valid_ns: int = 0


class Entry(NamedTuple):
    """A name's inode, and how long the kernel may use the name without asking again."""

    attributes: Attributes
    entry_valid_ns: int = 0


Opened: TypeAlias = tuple[FileHandle, int]
"""An open file or directory, and FOPEN_* (procscope.fuse.wire)."""


@frozen
class DirEntry:
    """One name of a directory.

    `type` is DT_* (the S_IF* type shifted right by 12). `entry` is for READDIRPLUS only; None
    where it is unknown, and always for `.` and `..`.
    """

    nodeid: NodeId
    type: int
    name: bytes
    entry: Entry | None = None


@frozen
class StatFs:
    """What statfs(2) shows. The defaults are those of a filesystem that stores nothing."""

    blocks: int = 0
    blocks_free: int = 0
    blocks_available: int = 0
    files: int = 0
    files_free: int = 0
    block_size_bytes: int = 4096
    fragment_size_bytes: int = 4096
    name_max_bytes: int = 255


class Filesystem(Protocol):
    """A read-only tree of inodes. Every method may raise OSError with the errno to answer."""

    def lookup(self, caller: Caller, parent: NodeId, name: bytes) -> Entry:
        """The inode that `name` has in `parent`; OSError(ENOENT) where there is none."""
        ...

    def getattr(self, caller: Caller, nodeid: NodeId, fh: FileHandle | None) -> Attributes:
        """The attributes of an inode; `fh` where the caller asked by an open file."""
        ...

    def access(self, caller: Caller, nodeid: NodeId, mask: int) -> None:
        """Return where access(2) or chdir(2) with `mask` succeeds, by `permissions.check`.

        Not sent under `default_permissions`.
        """
        ...

    def readlink(self, caller: Caller, nodeid: NodeId) -> bytes:
        """The target of a symbolic link, without a NUL."""
        ...

    def open(self, caller: Caller, nodeid: NodeId, flags: int) -> Opened:
        """Open a file; `flags` are open(2)'s and never ask for writing."""
        ...

    def read(
        self, pid: Pid, unique: int, nodeid: NodeId, fh: FileHandle, offset: int, size: int
    ) -> bytes | memoryview:
        """At most `size` bytes from `offset` on; empty at the end of the file and beyond.

        `pid` and `unique` are the caller's, of whom nothing else matters to an open file.
        `offset` is below 2**63, and `size` above 0 and no more than a request may carry.
        """
        ...

    def release(self, nodeid: NodeId, fh: FileHandle) -> None:
        """The last descriptor of an open file is closed. Nobody waits for this."""
        ...

    def opendir(self, caller: Caller, nodeid: NodeId) -> Opened:
        """Open a directory."""
        ...

    def readdir(
        self, caller: Caller, nodeid: NodeId, fh: FileHandle, offset: int, plus: bool
    ) -> Iterable[DirEntry]:
        """The entries after the first `offset` ones, in an order that does not change.

        The number of an entry, from 1 on, is the offset at which a listing resumes behind it.
        With `plus` each has its `entry`. More may be given than the caller takes.
        """
        ...

    def releasedir(self, caller: Caller, nodeid: NodeId, fh: FileHandle) -> None:
        """An open directory is closed."""
        ...

    def statfs(self, caller: Caller, nodeid: NodeId) -> StatFs:
        """The numbers that df(1) asks for."""
        ...

    def forget(self, nodeid: NodeId, nlookup: int) -> None:
        """The kernel drops `nlookup` of the references that lookups gave it."""
        ...
