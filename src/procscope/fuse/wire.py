"""Struct layouts and constants of the kernel's FUSE protocol, named as in <linux/fuse.h>.

https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/fuse.h (protocol 7.45). Every
number is in the machine's own byte order, and every struct is laid out without gaps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntFlag
from struct import Struct
from typing import Any, Final

FUSE_KERNEL_VERSION: Final = 7
FUSE_ROOT_ID: Final = 1
FUSE_MIN_READ_BUFFER: Final = 8192
FUSE_NOTIFY_RESEND: Final = 7
FUSE_UNIQUE_RESEND: Final = 1 << 63
"""Set in `unique` of a request that is sent again (Linux 6.9)."""
FUSE_INVALID_UIDGID: Final = 0xFFFFFFFF

FUSE_COMPAT_INIT_IN_SIZE: Final = 16
"""struct fuse_init_in before 7.36 ends with `flags`; the header has no name for it."""
FUSE_COMPAT_22_INIT_OUT_SIZE: Final = 24


class InitFlag(IntFlag):
    """Flags of INIT. Bits 32 and up travel in `flags2`, where FUSE_INIT_EXT is set (7.36)."""

    FUSE_ASYNC_READ = 1 << 0
    FUSE_POSIX_LOCKS = 1 << 1
    FUSE_FILE_OPS = 1 << 2
    FUSE_ATOMIC_O_TRUNC = 1 << 3
    FUSE_EXPORT_SUPPORT = 1 << 4
    FUSE_BIG_WRITES = 1 << 5
    FUSE_DONT_MASK = 1 << 6
    FUSE_SPLICE_WRITE = 1 << 7
    FUSE_SPLICE_MOVE = 1 << 8
    FUSE_SPLICE_READ = 1 << 9
    FUSE_FLOCK_LOCKS = 1 << 10
    FUSE_HAS_IOCTL_DIR = 1 << 11
    FUSE_AUTO_INVAL_DATA = 1 << 12
    FUSE_DO_READDIRPLUS = 1 << 13
    FUSE_READDIRPLUS_AUTO = 1 << 14
    FUSE_ASYNC_DIO = 1 << 15
    FUSE_WRITEBACK_CACHE = 1 << 16
    FUSE_NO_OPEN_SUPPORT = 1 << 17
    FUSE_PARALLEL_DIROPS = 1 << 18
    FUSE_HANDLE_KILLPRIV = 1 << 19
    FUSE_POSIX_ACL = 1 << 20
    FUSE_ABORT_ERROR = 1 << 21
    FUSE_MAX_PAGES = 1 << 22
    FUSE_CACHE_SYMLINKS = 1 << 23
    FUSE_NO_OPENDIR_SUPPORT = 1 << 24
    FUSE_EXPLICIT_INVAL_DATA = 1 << 25
    FUSE_MAP_ALIGNMENT = 1 << 26
    FUSE_SUBMOUNTS = 1 << 27
    FUSE_HANDLE_KILLPRIV_V2 = 1 << 28
    FUSE_SETXATTR_EXT = 1 << 29
    FUSE_INIT_EXT = 1 << 30
    FUSE_INIT_RESERVED = 1 << 31
    FUSE_SECURITY_CTX = 1 << 32
    FUSE_HAS_INODE_DAX = 1 << 33
    FUSE_CREATE_SUPP_GROUP = 1 << 34
    FUSE_HAS_EXPIRE_ONLY = 1 << 35
    FUSE_DIRECT_IO_ALLOW_MMAP = 1 << 36
    FUSE_PASSTHROUGH = 1 << 37
    FUSE_NO_EXPORT_SUPPORT = 1 << 38
    FUSE_HAS_RESEND = 1 << 39
    FUSE_ALLOW_IDMAP = 1 << 40
    FUSE_OVER_IO_URING = 1 << 41
    FUSE_REQUEST_TIMEOUT = 1 << 42


# fuse_open_out.open_flags
FOPEN_DIRECT_IO: Final = 1 << 0
FOPEN_KEEP_CACHE: Final = 1 << 1
FOPEN_NONSEEKABLE: Final = 1 << 2
FOPEN_CACHE_DIR: Final = 1 << 3
FOPEN_STREAM: Final = 1 << 4
FOPEN_NOFLUSH: Final = 1 << 5
"""No FLUSH at close(2) (Linux 5.16); older kernels ignore the bit."""
FOPEN_PARALLEL_DIRECT_WRITES: Final = 1 << 6
FOPEN_PASSTHROUGH: Final = 1 << 7

# fuse_getattr_in.getattr_flags
FUSE_GETATTR_FH: Final = 1 << 0

# fuse_release_in.release_flags
FUSE_RELEASE_FLUSH: Final = 1 << 0
FUSE_RELEASE_FLOCK_UNLOCK: Final = 1 << 1

# fuse_read_in.read_flags
FUSE_READ_LOCKOWNER: Final = 1 << 1

# fuse_setattr_in.valid
FATTR_MODE: Final = 1 << 0
FATTR_UID: Final = 1 << 1
FATTR_GID: Final = 1 << 2
FATTR_SIZE: Final = 1 << 3
FATTR_ATIME: Final = 1 << 4
FATTR_MTIME: Final = 1 << 5
FATTR_FH: Final = 1 << 6
FATTR_ATIME_NOW: Final = 1 << 7
FATTR_MTIME_NOW: Final = 1 << 8
FATTR_LOCKOWNER: Final = 1 << 9
FATTR_CTIME: Final = 1 << 10
FATTR_KILL_SUIDGID: Final = 1 << 11


class Layout:
    """One struct: its members in order, each a `struct` code or another struct.

    Padding and reserved members are `x` codes and have no value. `names` are the members that
    have one; a nested one as in C, `attr.ino`.
    """

    __slots__ = ("codes", "members", "name", "names", "struct")

    def __init__(self, name: str, members: Mapping[str, str | Layout]) -> None:
        self.name: Final = name
        self.members: Final = members
        self.codes: Final = "".join(_codes(member) for member in members.values())
        self.names: Final = tuple(
            inner for name, member in members.items() for inner in _names(name, member)
        )
        self.struct: Final = Struct("=" + self.codes)

    @property
    def size(self) -> int:
        """sizeof(struct …) in bytes."""
        return self.struct.size

    def unpack(self, buffer: bytes | memoryview, start: int = 0) -> dict[str, int]:
        """The members by name; struct.error where `buffer` is too short."""
        return dict(zip(self.names, self.struct.unpack_from(buffer, start), strict=True))

    def pack(self, **values: int) -> bytes:
        """The struct's bytes; a member that is not given is 0."""
        return self.struct.pack(*(values.get(name, 0) for name in self.names))


def _codes(member: str | Layout) -> str:
    return member if isinstance(member, str) else member.codes


def _names(name: str, member: str | Layout) -> list[str]:
    if isinstance(member, Layout):
        return [f"{name}.{inner}" for inner in member.names]
    return [] if member.endswith("x") else [name]


def joined(*layouts: Layout) -> Struct:
    """One `struct.Struct` for structs that follow each other, packed in a single call."""
    return Struct("=" + "".join(layout.codes for layout in layouts))


def _layout(name: str, /, **members: str | Layout) -> Layout:
    return Layout(name, members)


fuse_in_header: Final = _layout(
    "fuse_in_header",
    len="I", opcode="I", unique="Q", nodeid="Q", uid="I", gid="I", pid="I",
    total_extlen="H", padding="2x",
)  # fmt: skip
fuse_out_header: Final = _layout("fuse_out_header", len="I", error="i", unique="Q")

fuse_attr: Final = _layout(
    "fuse_attr",
    ino="Q", size="Q", blocks="Q", atime="Q", mtime="Q", ctime="Q",
    atimensec="I", mtimensec="I", ctimensec="I",
    mode="I", nlink="I", uid="I", gid="I", rdev="I", blksize="I", flags="I",
)  # fmt: skip
fuse_kstatfs: Final = _layout(
    "fuse_kstatfs",
    blocks="Q", bfree="Q", bavail="Q", files="Q", ffree="Q",
    bsize="I", namelen="I", frsize="I", padding="4x", spare="24x",
)  # fmt: skip

# INIT
fuse_init_in: Final = _layout(
    "fuse_init_in",
    major="I", minor="I", max_readahead="I", flags="I", flags2="I", unused="44x",
)  # fmt: skip
fuse_init_out: Final = _layout(
    "fuse_init_out",
    major="I", minor="I", max_readahead="I", flags="I",
    max_background="H", congestion_threshold="H", max_write="I", time_gran="I",
    max_pages="H", map_alignment="H", flags2="I", unused="28x",
)  # fmt: skip

# Names and attributes
fuse_entry_out: Final = _layout(
    "fuse_entry_out",
    nodeid="Q", generation="Q", entry_valid="Q", attr_valid="Q",
    entry_valid_nsec="I", attr_valid_nsec="I", attr=fuse_attr,
)  # fmt: skip
fuse_forget_in: Final = _layout("fuse_forget_in", nlookup="Q")
fuse_forget_one: Final = _layout("fuse_forget_one", nodeid="Q", nlookup="Q")
fuse_batch_forget_in: Final = _layout("fuse_batch_forget_in", count="I", dummy="4x")
fuse_getattr_in: Final = _layout("fuse_getattr_in", getattr_flags="I", dummy="4x", fh="Q")
fuse_attr_out: Final = _layout(
    "fuse_attr_out", attr_valid="Q", attr_valid_nsec="I", dummy="4x", attr=fuse_attr
)
fuse_access_in: Final = _layout("fuse_access_in", mask="I", padding="4x")
fuse_statfs_out: Final = _layout("fuse_statfs_out", st=fuse_kstatfs)

# Open files
fuse_open_in: Final = _layout("fuse_open_in", flags="I", open_flags="I")
fuse_open_out: Final = _layout("fuse_open_out", fh="Q", open_flags="I", padding="4x")
fuse_release_in: Final = _layout(
    "fuse_release_in", fh="Q", flags="I", release_flags="I", lock_owner="Q"
)
fuse_read_in: Final = _layout(
    "fuse_read_in",
    fh="Q", offset="Q", size="I", read_flags="I", lock_owner="Q", flags="I", padding="4x",
)  # fmt: skip
fuse_flush_in: Final = _layout("fuse_flush_in", fh="Q", unused="4x", padding="4x", lock_owner="Q")
fuse_fsync_in: Final = _layout("fuse_fsync_in", fh="Q", fsync_flags="I", padding="4x")
fuse_lseek_in: Final = _layout("fuse_lseek_in", fh="Q", offset="Q", whence="I", padding="4x")
fuse_ioctl_in: Final = _layout(
    "fuse_ioctl_in", fh="Q", flags="I", cmd="I", arg="Q", in_size="I", out_size="I"
)
fuse_poll_in: Final = _layout("fuse_poll_in", fh="Q", kh="Q", flags="I", events="I")
fuse_interrupt_in: Final = _layout("fuse_interrupt_in", unique="Q")

# Directories; a name follows each fuse_dirent
fuse_dirent: Final = _layout("fuse_dirent", ino="Q", off="Q", namelen="I", type="I")
fuse_direntplus: Final = _layout("fuse_direntplus", entry_out=fuse_entry_out, dirent=fuse_dirent)

# Requests that change something: never carried out, but named by the tracer
fuse_setattr_in: Final = _layout(
    "fuse_setattr_in",
    valid="I", padding="4x", fh="Q", size="Q", lock_owner="Q", atime="Q", mtime="Q", ctime="Q",
    atimensec="I", mtimensec="I", ctimensec="I", mode="I", unused4="4x", uid="I", gid="I",
    unused5="4x",
)  # fmt: skip
fuse_mknod_in: Final = _layout("fuse_mknod_in", mode="I", rdev="I", umask="I", padding="4x")
fuse_mkdir_in: Final = _layout("fuse_mkdir_in", mode="I", umask="I")
fuse_rename_in: Final = _layout("fuse_rename_in", newdir="Q")
fuse_rename2_in: Final = _layout("fuse_rename2_in", newdir="Q", flags="I", padding="4x")
fuse_link_in: Final = _layout("fuse_link_in", oldnodeid="Q")
fuse_create_in: Final = _layout("fuse_create_in", flags="I", mode="I", umask="I", open_flags="I")
fuse_write_in: Final = _layout(
    "fuse_write_in",
    fh="Q", offset="Q", size="I", write_flags="I", lock_owner="Q", flags="I", padding="4x",
)  # fmt: skip
fuse_getxattr_in: Final = _layout("fuse_getxattr_in", size="I", padding="4x")
fuse_fallocate_in: Final = _layout(
    "fuse_fallocate_in", fh="Q", offset="Q", length="Q", mode="I", padding="4x"
)
fuse_copy_file_range_in: Final = _layout(
    "fuse_copy_file_range_in",
    fh_in="Q", off_in="Q", nodeid_out="Q", fh_out="Q", off_out="Q", len="Q", flags="Q",
)  # fmt: skip

LAYOUTS: Final[Sequence[Layout]] = tuple(
    value for value in list(globals().values()) if isinstance(value, Layout)
)


def flag_names(prefix: str) -> dict[int, str]:
    """bit -> name without the prefix, for the constants above whose name begins with it."""
    constants: dict[str, Any] = globals()
    return {
        value: name.removeprefix(prefix)
        for name, value in constants.items()
        if name.startswith(prefix) and isinstance(value, int)
    }
