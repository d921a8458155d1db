"""Every request of the FUSE protocol: its number, its structs, and what is done with it.

One table, read by the protocol layer, by the tracer, and by the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from errno import EINVAL, ENOSYS, ENOTTY, EROFS
from typing import Final

from procscope.fuse import wire
from procscope.fuse.wire import Layout
from procscope.values import frozen

FUSE_LOOKUP: Final = 1
FUSE_FORGET: Final = 2
FUSE_GETATTR: Final = 3
FUSE_READLINK: Final = 5
FUSE_OPEN: Final = 14
FUSE_READ: Final = 15
FUSE_STATFS: Final = 17
FUSE_RELEASE: Final = 18
FUSE_INIT: Final = 26
FUSE_OPENDIR: Final = 27
FUSE_READDIR: Final = 28
FUSE_RELEASEDIR: Final = 29
FUSE_ACCESS: Final = 34
FUSE_DESTROY: Final = 38
FUSE_BATCH_FORGET: Final = 42
FUSE_READDIRPLUS: Final = 44


class Answer(Enum):
    """What is done with a request."""

    HANDLED = "handled"
    """The session answers it, mostly by asking the filesystem."""
    HANDLED_WITHOUT_REPLY = "handled without reply"
    NO_REPLY = "no reply"
    """Read and dropped; the kernel expects no answer."""
    REFUSED = "refused"
    """Answered with an errno, whatever it says."""


@frozen
class Operation:
    """One opcode. `names` NUL-terminated names follow the request's struct."""

    opcode: int
    name: str
    request: Layout | None
    reply: Layout | None
    answer: Answer
    errno: int = 0
    names: int = 0

    @property
    def body_bytes(self) -> int:
        """The least that follows the header of a well-formed request."""
        return self.request.size if self.request else 0


def _handled(
    opcode: int, name: str, request: Layout | None, reply: Layout | None, *, names: int = 0
) -> Operation:
    return Operation(opcode, name, request, reply, Answer.HANDLED, names=names)


def _silent(opcode: int, name: str, request: Layout | None, answer: Answer) -> Operation:
    return Operation(opcode, name, request, None, answer)


def _refused(
    opcode: int, name: str, request: Layout | None, errno: int, *, names: int = 0
) -> Operation:
    return Operation(opcode, name, request, None, Answer.REFUSED, errno, names)


# The kernel remembers ENOSYS to FLUSH, FSYNC, FSYNCDIR, GETXATTR, LISTXATTR, LSEEK, POLL and STATX
# for the connection and does without: it does not ask again, and callers see what they would see
# on a filesystem that has no such method. It does not remember it for IOCTL, and makes it ENOTTY.
OPERATIONS: Final[tuple[Operation, ...]] = (
    _handled(FUSE_LOOKUP, "LOOKUP", None, wire.fuse_entry_out, names=1),
    _silent(FUSE_FORGET, "FORGET", wire.fuse_forget_in, Answer.HANDLED_WITHOUT_REPLY),
    _handled(FUSE_GETATTR, "GETATTR", wire.fuse_getattr_in, wire.fuse_attr_out),
    _refused(4, "SETATTR", wire.fuse_setattr_in, EROFS),
    _handled(FUSE_READLINK, "READLINK", None, None),
    _refused(6, "SYMLINK", None, EROFS, names=2),
    _refused(8, "MKNOD", wire.fuse_mknod_in, EROFS, names=1),
    _refused(9, "MKDIR", wire.fuse_mkdir_in, EROFS, names=1),
    _refused(10, "UNLINK", None, EROFS, names=1),
    _refused(11, "RMDIR", None, EROFS, names=1),
    _refused(12, "RENAME", wire.fuse_rename_in, EROFS, names=2),
    _refused(13, "LINK", wire.fuse_link_in, EROFS, names=1),
    _handled(FUSE_OPEN, "OPEN", wire.fuse_open_in, wire.fuse_open_out),
    _handled(FUSE_READ, "READ", wire.fuse_read_in, None),
    _refused(16, "WRITE", wire.fuse_write_in, EROFS),
    _handled(FUSE_STATFS, "STATFS", None, wire.fuse_statfs_out),
    _handled(FUSE_RELEASE, "RELEASE", wire.fuse_release_in, None),
    _refused(20, "FSYNC", wire.fuse_fsync_in, ENOSYS),
    _refused(21, "SETXATTR", None, EROFS),
    _refused(22, "GETXATTR", wire.fuse_getxattr_in, ENOSYS, names=1),
    _refused(23, "LISTXATTR", wire.fuse_getxattr_in, ENOSYS),
    _refused(24, "REMOVEXATTR", None, EROFS, names=1),
    _refused(25, "FLUSH", wire.fuse_flush_in, ENOSYS),
    # Negotiated before a session begins; a connection has one only.
    _refused(FUSE_INIT, "INIT", wire.fuse_init_in, EINVAL),
    _handled(FUSE_OPENDIR, "OPENDIR", wire.fuse_open_in, wire.fuse_open_out),
    _handled(FUSE_READDIR, "READDIR", wire.fuse_read_in, None),
    _handled(FUSE_RELEASEDIR, "RELEASEDIR", wire.fuse_release_in, None),
    _refused(30, "FSYNCDIR", wire.fuse_fsync_in, ENOSYS),
    _refused(31, "GETLK", None, ENOSYS),
    _refused(32, "SETLK", None, ENOSYS),
    _refused(33, "SETLKW", None, ENOSYS),
    _handled(FUSE_ACCESS, "ACCESS", wire.fuse_access_in, None),
    _refused(35, "CREATE", wire.fuse_create_in, EROFS, names=1),
    # One thread answers requests in order: what is to be interrupted is answered or not yet read.
    _silent(36, "INTERRUPT", wire.fuse_interrupt_in, Answer.NO_REPLY),
    _refused(37, "BMAP", None, ENOSYS),
    _handled(FUSE_DESTROY, "DESTROY", None, None),
    _refused(39, "IOCTL", wire.fuse_ioctl_in, ENOTTY),
    _refused(40, "POLL", wire.fuse_poll_in, ENOSYS),
    _silent(41, "NOTIFY_REPLY", None, Answer.NO_REPLY),
    _silent(
        FUSE_BATCH_FORGET,
        "BATCH_FORGET",
        wire.fuse_batch_forget_in,
        Answer.HANDLED_WITHOUT_REPLY,
    ),
    _refused(43, "FALLOCATE", wire.fuse_fallocate_in, EROFS),
    _handled(FUSE_READDIRPLUS, "READDIRPLUS", wire.fuse_read_in, None),
    _refused(45, "RENAME2", wire.fuse_rename2_in, EROFS, names=2),
    _refused(46, "LSEEK", wire.fuse_lseek_in, ENOSYS),
    _refused(47, "COPY_FILE_RANGE", wire.fuse_copy_file_range_in, EROFS),
    _refused(48, "SETUPMAPPING", None, ENOSYS),
    _refused(49, "REMOVEMAPPING", None, ENOSYS),
    _refused(50, "SYNCFS", None, ENOSYS),
    _refused(51, "TMPFILE", wire.fuse_create_in, EROFS, names=1),
    _refused(52, "STATX", None, ENOSYS),
    _refused(53, "COPY_FILE_RANGE_64", wire.fuse_copy_file_range_in, EROFS),
    _refused(4096, "CUSE_INIT", None, ENOSYS),
)

BY_OPCODE: Final[Mapping[int, Operation]] = {
    operation.opcode: operation for operation in OPERATIONS
}
