"""The bytes of each reply: a fuse_out_header and what follows it, packed in one call."""

from __future__ import annotations

from collections.abc import Iterable
from errno import EINVAL
from functools import lru_cache
from typing import Final

from procscope.fuse import wire
from procscope.fuse.filesystem import Attributes, DirEntry, Entry, Opened, StatFs

Buffers = list[bytes | memoryview]
Reply = bytes | Buffers | None
"""One buffer, several to be written in one writev(2), or nothing where no answer is due."""

HEADER_BYTES: Final = wire.fuse_out_header.size
_NS_PER_S: Final = 1_000_000_000
_UINT64: Final = (1 << 64) - 1
_SECTOR_BYTES: Final = 512
_KEPT_ATTRIBUTES: Final = 512
_COPIED_BYTES: Final = 4096

_header = wire.fuse_out_header.struct
_pack_header = _header.pack
_entry_reply = wire.joined(wire.fuse_out_header, wire.fuse_entry_out)
_open_reply = wire.joined(wire.fuse_out_header, wire.fuse_open_out)
_pack_opened = _open_reply.pack
_OPENED_BYTES: Final = _open_reply.size
_statfs_reply = wire.joined(wire.fuse_out_header, wire.fuse_statfs_out)
_entry_out = wire.fuse_entry_out.struct
_attr_out_struct = wire.fuse_attr_out.struct
ATTRIBUTES_REPLY_BYTES: Final = HEADER_BYTES + wire.fuse_attr_out.size
_dirent = wire.fuse_dirent.struct

_NO_ENTRY: Final = bytes(_entry_out.size)
"""nodeid 0 in a fuse_direntplus: the kernel takes the name and looks the inode up when asked."""


def error(unique: int, errno: int) -> bytes:
    """An answer that is only an errno."""
    return _pack_header(HEADER_BYTES, -errno, unique)


def done(unique: int) -> bytes:
    """Success, with nothing to tell."""
    return _pack_header(HEADER_BYTES, 0, unique)


def data(unique: int, payload: bytes | memoryview) -> bytes | Buffers:
    """The answer to READ, READDIR and READLINK; a long payload is not copied."""
    size = len(payload)
    header = _pack_header(HEADER_BYTES + size, 0, unique)
    # The kernel looks up the pages of each buffer: that takes longer than to copy a small one.
    return header + payload if size <= _COPIED_BYTES else [header, payload]


def entry(unique: int, found: Entry) -> bytes:
    """fuse_entry_out: the answer to LOOKUP."""
    return _entry_reply.pack(_entry_reply.size, 0, unique, *_entry_values(found))


def attributes(unique: int, found: Attributes) -> bytes:
    """fuse_attr_out: the answer to GETATTR."""
    return _pack_header(ATTRIBUTES_REPLY_BYTES, 0, unique) + attr_out(found)


def opened(unique: int, handle: Opened) -> bytes:
    """fuse_open_out: the answer to OPEN and OPENDIR."""
    fh, flags = handle
    return _pack_opened(_OPENED_BYTES, 0, unique, fh, flags)


def statfs(unique: int, numbers: StatFs) -> bytes:
    """fuse_statfs_out."""
    return _statfs_reply.pack(
        _statfs_reply.size,
        0,
        unique,
        numbers.blocks,
        numbers.blocks_free,
        numbers.blocks_available,
        numbers.files,
        numbers.files_free,
        numbers.block_size_bytes,
        numbers.name_max_bytes,
        numbers.fragment_size_bytes,
    )


def directory(entries: Iterable[DirEntry], offset: int, size: int, plus: bool) -> bytes:
    """As many of the entries after `offset` as fit into `size` bytes.

    A sequence of fuse_dirent, or fuse_direntplus, each with its name and padded to 8 bytes
    (FUSE_REC_ALIGN). Raises OSError(EINVAL) where the first does not fit, as getdents64(2) does:
    an empty answer would mean the end of the directory.
    """
    packed = bytearray()
    for number, item in enumerate(entries, offset + 1):
        record = _record(item, number, plus)
        if len(packed) + len(record) > size:
            if not packed:
                raise OSError(EINVAL, "no directory entry fits into the buffer")
            break
        packed += record
    return bytes(packed)


def _record(item: DirEntry, number: int, plus: bool) -> bytes:
    name = item.name
    head = _dirent.pack(item.nodeid, number, len(name), item.type)
    record = head + name + bytes(-len(name) % 8)
    if not plus:
        return record
    found = item.entry
    return (_entry_out.pack(*_entry_values(found)) if found else _NO_ENTRY) + record


def _entry_values(found: Entry) -> tuple[int, ...]:
    inode = found.attributes
    entry_valid_s, entry_valid_nsec = divmod(found.entry_valid_ns, _NS_PER_S)
    attr_valid_s, attr_valid_nsec = divmod(inode.valid_ns, _NS_PER_S)
    return (
        inode.nodeid,
        0,
        entry_valid_s,
        attr_valid_s,
        entry_valid_nsec,
        attr_valid_nsec,
        *_attr_values(inode),
    )


@lru_cache(maxsize=_KEPT_ATTRIBUTES)
def attr_out(found: Attributes) -> bytes:
    """Return a fuse_attr_out. Most are asked for over and over: the kernel may not keep them."""
    valid_s, valid_nsec = divmod(found.valid_ns, _NS_PER_S)
    return _attr_out_struct.pack(valid_s, valid_nsec, *_attr_values(found))


def _attr_values(inode: Attributes) -> tuple[int, ...]:
    mtime, mtimensec = _time(inode.mtime_ns)
    atime, atimensec = (mtime, mtimensec) if inode.atime_ns is None else _time(inode.atime_ns)
    ctime, ctimensec = (mtime, mtimensec) if inode.ctime_ns is None else _time(inode.ctime_ns)
    size_bytes = inode.size_bytes
    return (
        inode.nodeid,
        size_bytes,
        -(-size_bytes // _SECTOR_BYTES),
        atime,
        mtime,
        ctime,
        atimensec,
        mtimensec,
        ctimensec,
        inode.mode,
        inode.nlink,
        inode.uid,
        inode.gid,
        inode.rdev,
        inode.blksize,
        0,
    )


def _time(time_ns: int) -> tuple[int, int]:
    """Seconds and nanoseconds; before 1970 the seconds are the two's complement."""
    seconds, nanoseconds = divmod(time_ns, _NS_PER_S)
    return seconds & _UINT64, nanoseconds
