"""Requests in, replies out: the FUSE protocol without a descriptor.

A `Session` is given the bytes that read(2) on /dev/fuse returned, and gives the bytes that are to
be written back. It answers whatever it is given and never raises: malformed requests get EINVAL,
a filesystem that fails unexpectedly gets EIO in its name, and serving goes on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from errno import EINVAL, EIO, ENAMETOOLONG, ENOSYS, EOPNOTSUPP, EROFS
from typing import Final, TypeAlias

from procscope.fuse import opcodes, replies, wire
from procscope.fuse.filesystem import Caller, Filesystem
from procscope.fuse.negotiation import ConnectionState
from procscope.fuse.opcodes import BY_OPCODE, OPERATIONS, Answer
from procscope.fuse.replies import Reply
from procscope.fuse.wire import InitFlag
from procscope.ids import FileHandle, NodeId, Pid

_Header: TypeAlias = tuple[int, int, int, NodeId, int, int, Pid, int]
"""len, opcode, unique, nodeid, uid, gid, pid, total_extlen: struct fuse_in_header"""
_Handler: TypeAlias = Callable[[int, NodeId, _Header, memoryview], Reply]
"""unique, nodeid, the header, the whole request -> the reply"""

_BODY: Final = wire.fuse_in_header.size
_PID: Final = 6
"""Where it is in `_Header`."""
_NOT_RESEND: Final = ~wire.FUSE_UNIQUE_RESEND
_LARGEST_OFFSET: Final = (1 << 63) - 1
_LONGEST_LINK_BYTES: Final = 4095
_ERRNO_END: Final = 512
"""fuse_dev_do_write() refuses a reply whose error is not above -512."""

# The kernel itself removes O_CREAT, O_EXCL, O_NOCTTY, and without FUSE_ATOMIC_O_TRUNC also O_TRUNC.
_WRITING: Final = os.O_ACCMODE | os.O_TRUNC | os.O_CREAT | os.O_APPEND

_unpack_header = wire.fuse_in_header.struct.unpack_from
_unpack_open = wire.fuse_open_in.struct.unpack_from
_unpack_read = wire.fuse_read_in.struct.unpack_from
_unpack_release = wire.fuse_release_in.struct.unpack_from
_unpack_getattr = wire.fuse_getattr_in.struct.unpack_from
_unpack_access = wire.fuse_access_in.struct.unpack_from
_unpack_forget = wire.fuse_forget_in.struct.unpack_from
_unpack_batch_forget = wire.fuse_batch_forget_in.struct.unpack_from

_REFUSED: Final = {
    operation.opcode: operation.errno
    for operation in OPERATIONS
    if operation.answer is Answer.REFUSED
}
_SILENT: Final = frozenset(
    operation.opcode
    for operation in OPERATIONS
    if operation.answer in (Answer.NO_REPLY, Answer.HANDLED_WITHOUT_REPLY)
)

_log = logging.getLogger(__name__)


def errno_of(error: Exception) -> int:
    """The errno that a reply carries for an exception: OSError's own, EIO for any other.

    ENOSYS is not a filesystem's to say: to the kernel it means that the request exists nowhere on
    this connection, after OPEN even that no file needs to be opened any more. It becomes
    EOPNOTSUPP. What is no errno that a reply may carry becomes EIO.
    """
    if not isinstance(error, OSError):
        return EIO
    errno = error.errno
    if errno == ENOSYS:
        return EOPNOTSUPP
    if errno is None or not 0 < errno < _ERRNO_END:
        return EIO
    return errno


class Session:
    """Answers the requests of one connection from one filesystem. Keeps nothing between them.

    Where FUSE_NO_OPEN_SUPPORT was agreed, the kernel opens files by itself and reads them into its
    page cache: OPEN is answered ENOSYS, and never comes again.
    """

    def __init__(
        self, filesystem: Filesystem, state: ConnectionState, log: logging.Logger = _log
    ) -> None:
        self._without_open = state.has(InitFlag.FUSE_NO_OPEN_SUPPORT)
        self._filesystem = filesystem
        self._max_bytes = state.max_read_bytes
        self._log = log
        methods: dict[int, _Handler] = {
            opcodes.FUSE_LOOKUP: self._lookup,
            opcodes.FUSE_FORGET: self._forget,
            opcodes.FUSE_GETATTR: self._getattr,
            opcodes.FUSE_READLINK: self._readlink,
            opcodes.FUSE_OPEN: self._open,
            opcodes.FUSE_READ: self._read,
            opcodes.FUSE_STATFS: self._statfs,
            opcodes.FUSE_RELEASE: self._release,
            opcodes.FUSE_OPENDIR: self._opendir,
            opcodes.FUSE_READDIR: self._readdir,
            opcodes.FUSE_RELEASEDIR: self._releasedir,
            opcodes.FUSE_ACCESS: self._access,
            opcodes.FUSE_DESTROY: self._destroy,
            opcodes.FUSE_BATCH_FORGET: self._batch_forget,
            opcodes.FUSE_READDIRPLUS: self._readdirplus,
        }
        self._handlers = {
            opcode: (method, _BODY + BY_OPCODE[opcode].body_bytes)
            for opcode, method in methods.items()
        }

    def handle(self, request: memoryview) -> Reply:
        """The reply to one request, None where none is due.

        `request` is what one read(2) returned. Never raises an Exception.
        """
        if len(request) < _BODY:
            return None
        header: _Header = _unpack_header(request)
        length, opcode, unique, nodeid, _, _, _, _ = header
        if not unique and opcode not in _SILENT:
            # The kernel would take a reply with 0 for a notification, and its error for the code.
            return None
        known = self._handlers.get(opcode)
        if known is None:
            return _refusal(opcode, unique)
        handler, least = known
        if length != len(request) or length < least:
            return _error(opcode, unique, EINVAL)
        try:
            return handler(unique, nodeid, header, request)
        except Exception as error:  # noqa: BLE001 - one bad request must not end the others
            return self._failed(opcode, unique, nodeid, error)

    def _failed(self, opcode: int, unique: int, nodeid: int, error: Exception) -> Reply:
        if not isinstance(error, OSError):
            name = BY_OPCODE[opcode].name
            self._log.error("%s of node %d failed", name, nodeid, exc_info=error)
        return _error(opcode, unique, errno_of(error))

    def _lookup(self, unique: int, nodeid: NodeId, header: _Header, request: memoryview) -> Reply:
        name = bytes(request[_BODY:-1])
        if not name or request[-1] or 0 in name:
            return replies.error(unique, EINVAL)
        return replies.entry(unique, self._filesystem.lookup(_caller_of(header), nodeid, name))

    def _getattr(self, unique: int, nodeid: NodeId, header: _Header, request: memoryview) -> Reply:
        flags, fh = _unpack_getattr(request, _BODY)
        by_file = FileHandle(fh) if flags & wire.FUSE_GETATTR_FH else None
        return replies.attributes(
            unique, self._filesystem.getattr(_caller_of(header), nodeid, by_file)
        )

    def _access(self, unique: int, nodeid: NodeId, header: _Header, request: memoryview) -> Reply:
        (mask,) = _unpack_access(request, _BODY)
        self._filesystem.access(_caller_of(header), nodeid, mask)
        return replies.done(unique)

    def _readlink(self, unique: int, nodeid: NodeId, header: _Header, request: memoryview) -> Reply:
        target = self._filesystem.readlink(_caller_of(header), nodeid)
        if len(target) > _LONGEST_LINK_BYTES:
            return replies.error(unique, ENAMETOOLONG)
        return replies.data(unique, target)

    def _open(self, unique: int, nodeid: NodeId, header: _Header, request: memoryview) -> Reply:
        flags, _ = _unpack_open(request, _BODY)
        if flags & _WRITING:
            return replies.error(unique, EROFS)
        if self._without_open:
            return replies.error(unique, ENOSYS)
        return replies.opened(unique, self._filesystem.open(_caller_of(header), nodeid, flags))

    def _read(self, unique: int, nodeid: NodeId, header: _Header, request: memoryview) -> Reply:
        fh, offset, size, read_flags, _, _ = _unpack_read(request, _BODY)
        if not (read_flags & wire.FUSE_READ_LOCKOWNER or self._without_open):
            # A read into the page cache (splice, sendfile, a private mapping), which all readers
            # of the inode share, though each has a content of its own. The kernel names the lock
            # owner in direct reads only (fuse_direct_io() in fs/fuse/file.c). Programs fall back
            # to read(2) at EINVAL.
            return replies.error(unique, EINVAL)
        if not size or offset > _LARGEST_OFFSET:
            return replies.done(unique)
        if size > self._max_bytes:
            size = self._max_bytes
        payload = self._filesystem.read(
            header[_PID], unique & _NOT_RESEND, nodeid, fh, offset, size
        )
        return replies.data(unique, payload if len(payload) <= size else payload[:size])

    def _release(self, unique: int, nodeid: NodeId, header: _Header, request: memoryview) -> Reply:
        fh, _, _, _ = _unpack_release(request, _BODY)
        self._filesystem.release(nodeid, fh)
        return replies.done(unique)

    def _opendir(self, unique: int, nodeid: NodeId, header: _Header, request: memoryview) -> Reply:
        return replies.opened(unique, self._filesystem.opendir(_caller_of(header), nodeid))

    def _readdir(self, unique: int, nodeid: NodeId, header: _Header, request: memoryview) -> Reply:
        return self._list(unique, nodeid, header, request, plus=False)

    def _readdirplus(
        self, unique: int, nodeid: NodeId, header: _Header, request: memoryview
    ) -> Reply:
        return self._list(unique, nodeid, header, request, plus=True)

    def _list(
        self, unique: int, nodeid: NodeId, header: _Header, request: memoryview, *, plus: bool
    ) -> Reply:
        fh, offset, size, _, _, _ = _unpack_read(request, _BODY)
        if offset > _LARGEST_OFFSET:
            return replies.done(unique)
        entries = self._filesystem.readdir(_caller_of(header), nodeid, fh, offset, plus)
        room = min(size, self._max_bytes)
        return replies.data(unique, replies.directory(entries, offset, room, plus))

    def _releasedir(
        self, unique: int, nodeid: NodeId, header: _Header, request: memoryview
    ) -> Reply:
        fh, _, _, _ = _unpack_release(request, _BODY)
        self._filesystem.releasedir(_caller_of(header), nodeid, fh)
        return replies.done(unique)

    def _statfs(self, unique: int, nodeid: NodeId, header: _Header, request: memoryview) -> Reply:
        return replies.statfs(unique, self._filesystem.statfs(_caller_of(header), nodeid))

    def _destroy(self, unique: int, nodeid: NodeId, header: _Header, request: memoryview) -> Reply:
        return replies.done(unique)

    def _forget(self, unique: int, nodeid: NodeId, header: _Header, request: memoryview) -> Reply:
        (nlookup,) = _unpack_forget(request, _BODY)
        self._filesystem.forget(nodeid, nlookup)
        return None

    def _batch_forget(
        self, unique: int, nodeid: NodeId, header: _Header, request: memoryview
    ) -> Reply:
        (count,) = _unpack_batch_forget(request, _BODY)
        start = _BODY + wire.fuse_batch_forget_in.size
        end = start + count * wire.fuse_forget_one.size
        if end > len(request):
            return None
        for node, nlookup in wire.fuse_forget_one.struct.iter_unpack(request[start:end]):
            self._filesystem.forget(node, nlookup)
        return None


class Refuser:
    """Answers every request that wants an answer with EIO, and looks at nothing but its header."""

    def handle(self, request: memoryview) -> Reply:
        """EIO, or None where no reply is due."""
        if len(request) < _BODY:
            return None
        _, opcode, unique, _, _, _, _, _ = _unpack_header(request)
        return _error(opcode, unique, EIO)


def _caller_of(header: _Header) -> Caller:
    _, _, unique, _, uid, gid, pid, _ = header
    return Caller(pid, uid, gid, unique & _NOT_RESEND)


def _refusal(opcode: int, unique: int) -> Reply:
    """The answer to a request that has no handler."""
    return _error(opcode, unique, _REFUSED.get(opcode, ENOSYS))


def _error(opcode: int, unique: int, errno: int) -> Reply:
    """An errno, where a reply is due."""
    return None if opcode in _SILENT else replies.error(unique, errno)
