"""Proves what is answered to every request, on bytes, with no mount."""

from __future__ import annotations

import logging
import os
import sys
from errno import EACCES, EINVAL, EIO, EISDIR, ENAMETOOLONG, ENOENT, ENOSYS, EOPNOTSUPP, EROFS

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.fuse import opcodes, wire
from procscope.fuse.filesystem import Caller, Entry
from procscope.fuse.opcodes import BY_OPCODE, OPERATIONS, Answer, Operation
from procscope.fuse.protocol import Session, errno_of
from procscope.ids import NodeId, Pid
from tests.unit.fuse.memory import (
    CONTENT,
    DIRECTORY,
    FILE,
    LINK,
    MISSING,
    MODE_OF,
    ROOT,
    TARGET,
    UNIQUE,
    FailingFilesystem,
    MemoryFilesystem,
    errno_in,
    fields,
    payload,
    read_request,
    request,
    session,
    state,
    whole,
)

CALLER = Caller(Pid(4321), 1000, 100, UNIQUE)
FORGETS = (opcodes.FUSE_FORGET, opcodes.FUSE_BATCH_FORGET)

# Captured from Linux 6.18 at `cat file`, by pid 3495; FUSE_ALLOW_IDMAP hides uid and gid. The
# handle of READ and RELEASE is 7.
CAPTURED_LOOKUP = bytes.fromhex(
    "2d000000 01000000 0600000000000000 0100000000000000 ffffffff ffffffff a70d0000 00000000"
    "66696c6500"
)
CAPTURED_OPEN = bytes.fromhex(
    "30000000 0e000000 0800000000000000 0200000000000000 ffffffff ffffffff a70d0000 00000000"
    "00800000 00000000"
)
CAPTURED_READ = bytes.fromhex(
    "50000000 0f000000 0a000000 00000000 02000000 00000000 ffffffff ffffffff a70d0000 00000000"
    "07000000 00000000 00000000 00000000 00000200 02000000 44af1485 791ae316 00800000 00000000"
)
CAPTURED_RELEASE = bytes.fromhex(
    "40000000 12000000 0e000000 00000000 02000000 00000000 00000000 00000000 00000000 00000000"
    "07000000 00000000 00800000 00000000 00000000 00000000"
)


def named(opcode_answer: Answer) -> list[Operation]:
    """The rows of the table with this answer."""
    return [operation for operation in OPERATIONS if operation.answer is opcode_answer]


@pytest.mark.skipif(sys.byteorder == "big", reason="captured on a little-endian machine")
def test_captured_requests_are_understood() -> None:
    """The requests of a `cat`, byte for byte."""
    filesystem = MemoryFilesystem()
    server = session(filesystem)
    reply = whole(server.handle(memoryview(CAPTURED_LOOKUP)))
    assert reply[:24] == bytes.fromhex("90000000 00000000 0600000000000000 0200000000000000")
    assert whole(server.handle(memoryview(CAPTURED_OPEN))) == bytes.fromhex(
        "20000000 00000000 0800000000000000 4d00000000000000 21000000 00000000"
    )
    assert payload(server.handle(memoryview(CAPTURED_READ)), unique=10) == CONTENT
    assert payload(server.handle(memoryview(CAPTURED_RELEASE)), unique=14) == b""
    nobody = wire.FUSE_INVALID_UIDGID
    assert filesystem.calls == [
        ("lookup", Caller(Pid(3495), nobody, nobody, 6), ROOT, b"file"),
        ("open", Caller(Pid(3495), nobody, nobody, 8), FILE, 0x8000),
        ("read", Pid(3495), 10, FILE, 7, 0, 131072),
        ("release", FILE, 7),
    ]


def test_lookup_tells_the_inode_and_how_long_it_is_valid() -> None:
    """Every member of fuse_entry_out; -1 ns is in the last second before 1970."""
    out = fields(wire.fuse_entry_out, session().handle(request(1, b"link\0")))
    assert out == {
        "nodeid": LINK,
        "generation": 0,
        "entry_valid": 2,
        "attr_valid": 1,
        "entry_valid_nsec": 500_000_000,
        "attr_valid_nsec": 7,
        "attr.ino": LINK,
        "attr.size": 1025,
        "attr.blocks": 3,
        "attr.atime": (1 << 64) - 1,
        "attr.mtime": 1_700_000_000,
        "attr.ctime": 1_700_000_000,
        "attr.atimensec": 999_999_999,
        "attr.mtimensec": 123_456_789,
        "attr.ctimensec": 123_456_789,
        "attr.mode": MODE_OF[LINK],
        "attr.nlink": 3,
        "attr.uid": 10,
        "attr.gid": 20,
        "attr.rdev": 0x501,
        "attr.blksize": 512,
        "attr.flags": 0,
    }


def test_getattr_tells_the_same_as_lookup() -> None:
    """fuse_attr_out holds the same fuse_attr."""
    found = fields(wire.fuse_entry_out, session().handle(request(1, b"file\0")))
    body = wire.fuse_getattr_in.pack()
    asked = fields(wire.fuse_attr_out, session().handle(request(3, body, nodeid=FILE)))
    assert (asked["attr_valid"], asked["attr_valid_nsec"]) == (1, 7)
    assert all(found[name] == value for name, value in asked.items())


@pytest.mark.parametrize(("flags", "fh"), [(0, None), (wire.FUSE_GETATTR_FH, 77)])
def test_getattr_has_a_handle_only_where_the_kernel_gives_one(flags: int, fh: int | None) -> None:
    """fh without FUSE_GETATTR_FH means nothing."""
    filesystem = MemoryFilesystem()
    body = wire.fuse_getattr_in.pack(getattr_flags=flags, fh=77)
    session(filesystem).handle(request(3, body, nodeid=FILE))
    assert filesystem.calls == [("getattr", CALLER, FILE, fh)]


def test_readlink_access_statfs_release_and_destroy() -> None:
    """The small ones: what each answers, and what the filesystem is asked."""
    filesystem = MemoryFilesystem()
    server = session(filesystem)
    assert payload(server.handle(request(opcodes.FUSE_READLINK, nodeid=LINK))) == TARGET
    mask = wire.fuse_access_in.pack(mask=os.R_OK)
    assert payload(server.handle(request(opcodes.FUSE_ACCESS, mask, nodeid=FILE))) == b""
    assert errno_in(server.handle(request(opcodes.FUSE_ACCESS, mask, nodeid=MISSING))) == ENOENT
    numbers = fields(wire.fuse_statfs_out, server.handle(request(opcodes.FUSE_STATFS)))
    assert (numbers["st.files"], numbers["st.namelen"], numbers["st.bsize"]) == (6, 255, 4096)
    body = wire.fuse_release_in.pack(fh=77)
    assert payload(server.handle(request(opcodes.FUSE_RELEASE, body, nodeid=FILE))) == b""
    assert payload(server.handle(request(opcodes.FUSE_RELEASEDIR, body, nodeid=ROOT))) == b""
    assert payload(server.handle(request(opcodes.FUSE_DESTROY))) == b""
    assert filesystem.calls == [
        ("access", CALLER, FILE, os.R_OK),
        ("access", CALLER, MISSING, os.R_OK),
        ("release", FILE, 77),
        ("releasedir", CALLER, ROOT, 77),
    ]


def test_opendir_gives_a_handle() -> None:
    """And the filesystem's errno where it is no directory."""
    body = wire.fuse_open_in.pack(flags=os.O_DIRECTORY)
    opened = fields(wire.fuse_open_out, session().handle(request(27, body)))
    assert opened == {"fh": 0, "open_flags": 0}
    assert errno_in(session().handle(request(27, body, nodeid=FILE))) == 20


def test_a_link_that_the_kernel_could_not_take_is_refused() -> None:
    """It gives a page for the target, and answers a longer one with EIO."""

    class LongLink(MemoryFilesystem):
        def readlink(self, caller: Caller, nodeid: NodeId) -> bytes:
            return b"x" * 4096

    assert errno_in(session(LongLink()).handle(request(opcodes.FUSE_READLINK))) == ENAMETOOLONG


@pytest.mark.parametrize(
    "flags", [os.O_WRONLY, os.O_RDWR, 3, os.O_TRUNC, os.O_CREAT, os.O_APPEND | os.O_WRONLY]
)
def test_opening_for_writing_is_refused_unasked(flags: int) -> None:
    """EROFS, and the filesystem never hears of it."""
    filesystem = MemoryFilesystem()
    body = wire.fuse_open_in.pack(flags=flags)
    assert errno_in(session(filesystem).handle(request(14, body, nodeid=FILE))) == EROFS
    assert filesystem.calls == []


@pytest.mark.parametrize("operation", named(Answer.REFUSED), ids=lambda row: str(row.name))
def test_what_is_refused_is_refused_whatever_it_says(operation: Operation) -> None:
    """The errno of the table, with a body and without."""
    for body in (b"", bytes(200)):
        reply = session().handle(request(operation.opcode, body))
        assert errno_in(reply) == operation.errno > 0


def test_what_would_change_something_is_erofs() -> None:
    """All such requests, and no other one."""
    refused = {row.name for row in OPERATIONS if errno_in_reply_to(row) == EROFS}
    assert refused == {
        "SETATTR", "SYMLINK", "MKNOD", "MKDIR", "UNLINK", "RMDIR", "RENAME", "RENAME2", "LINK",
        "WRITE", "CREATE", "TMPFILE", "SETXATTR", "REMOVEXATTR", "FALLOCATE", "COPY_FILE_RANGE",
        "COPY_FILE_RANGE_64",
    }  # fmt: skip


def errno_in_reply_to(operation: Operation) -> int:
    """The errno that a request of zeros gets; 0 where none is answered."""
    reply = session().handle(request(operation.opcode, bytes(operation.body_bytes)))
    return errno_in(reply) if reply is not None else 0


@pytest.mark.parametrize("opcode", [0, 7, 19, 54, 4095, 1 << 31])
def test_what_is_unknown_is_enosys(opcode: int) -> None:
    """A newer kernel's requests: it does without."""
    assert errno_in(session().handle(request(opcode, bytes(64)))) == ENOSYS


@pytest.mark.parametrize("body", [b"", b"\xff" * 8, bytes(8), bytes(64)])
def test_what_takes_no_reply_gets_none(body: bytes) -> None:
    """An answer to FORGET would be an answer to somebody else's request."""
    for answer in (Answer.NO_REPLY, Answer.HANDLED_WITHOUT_REPLY):
        for operation in named(answer):
            assert session().handle(request(operation.opcode, body)) is None


def test_every_handled_operation_of_the_table_has_a_handler() -> None:
    """A well-formed request to each is not answered ENOSYS."""
    server = session(MemoryFilesystem(names=[b"x"]))
    for operation in named(Answer.HANDLED):
        body = bytes(operation.body_bytes) + b"file\0" * operation.names
        assert errno_in(server.handle(request(operation.opcode, body))) != ENOSYS, operation


def test_forgets_reach_the_filesystem() -> None:
    """One by one and in a batch."""
    filesystem = MemoryFilesystem()
    server = session(filesystem)
    server.handle(request(2, wire.fuse_forget_in.pack(nlookup=3), nodeid=5))
    ones = b"".join(wire.fuse_forget_one.pack(nodeid=node, nlookup=1) for node in (6, 7))
    server.handle(request(42, wire.fuse_batch_forget_in.pack(count=2) + ones))
    assert filesystem.calls == [("forget", 5, 3), ("forget", 6, 1), ("forget", 7, 1)]


@given(st.integers(2, (1 << 32) - 1))
def test_a_batch_that_is_shorter_than_it_says_is_dropped(count: int) -> None:
    """Whatever is announced, one fuse_forget_one is there, and none is taken."""
    filesystem = MemoryFilesystem()
    body = wire.fuse_batch_forget_in.pack(count=count) + bytes(16)
    assert session(filesystem).handle(request(42, body)) is None
    assert filesystem.calls == []


@pytest.mark.parametrize("name", [b"", b"\0", b"file", b"fi\0le\0", b"file\0x"])
def test_a_name_that_is_none_is_einval(name: bytes) -> None:
    """Without NUL, empty, or with more behind the NUL."""
    filesystem = MemoryFilesystem()
    assert errno_in(session(filesystem).handle(request(1, name))) == EINVAL
    assert filesystem.calls == []


@pytest.mark.parametrize("operation", named(Answer.HANDLED), ids=lambda row: str(row.name))
def test_a_request_that_is_cut_off_or_lies_about_its_length_is_einval(
    operation: Operation,
) -> None:
    """Both where the header says more than there is, and less."""
    body = bytes(operation.body_bytes) + b"file\0" * operation.names
    for wrong in (39, 40 + len(body) - 1, 40 + len(body) + 1, (1 << 32) - 1, 0):
        reply = session().handle(request(operation.opcode, body, length=wrong))
        assert errno_in(reply) == EINVAL
    if body:
        assert errno_in(session().handle(request(operation.opcode, body[:-1]))) == EINVAL


@pytest.mark.parametrize(
    ("error", "errno"),
    [
        (PermissionError(EACCES, "no"), EACCES),
        (OSError(EISDIR, "no"), EISDIR),
        (OSError("without a number"), EIO),
        (OSError(0, "no error"), EIO),
        (OSError(-5, "negative"), EIO),
        (OSError(512, "ERESTARTSYS, the kernel refuses it"), EIO),
        (OSError(ENOSYS, "would switch OPEN off for good"), EOPNOTSUPP),
        (ValueError("a bug"), EIO),
        (RecursionError(), EIO),
    ],
)
def test_every_exception_has_an_errno_that_a_reply_may_carry(error: Exception, errno: int) -> None:
    """And the session says it."""
    assert errno_of(error) == errno
    server = session(FailingFilesystem(error))
    body = wire.fuse_open_in.pack()
    assert errno_in(server.handle(request(14, body, nodeid=FILE))) == errno
    assert server.handle(request(2, wire.fuse_forget_in.pack())) is None


def test_a_bug_is_logged_with_its_traceback_and_serving_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An OSError is an answer and is not logged."""
    filesystem = FailingFilesystem(ZeroDivisionError("a bug"))
    log = logging.getLogger("test.fuse")
    server = Session(filesystem, state(), log)
    assert errno_in(server.handle(request(1, b"file\0"))) == EIO
    (record,) = caplog.records
    assert record.name == "test.fuse"
    assert record.getMessage() == "LOOKUP of node 1 failed"
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError
    filesystem.error = FileNotFoundError(ENOENT, "an answer")
    assert errno_in(server.handle(request(1, b"file\0"))) == ENOENT
    assert payload(server.handle(read_request(0, 4096))) == CONTENT
    assert len(caplog.records) == 1


def test_an_inode_that_cannot_be_packed_is_eio(caplog: pytest.LogCaptureFixture) -> None:
    """A filesystem that gives numbers which fit no struct is a bug, not a malformed request."""

    class Wrong(MemoryFilesystem):
        def lookup(self, caller: Caller, parent: NodeId, name: bytes) -> Entry:
            entry = super().lookup(caller, parent, name)
            return Entry(entry.attributes, entry_valid_ns=-(10**18))

    assert errno_in(session(Wrong()).handle(request(1, b"file\0"))) == EIO
    assert len(caplog.records) == 1


def test_a_request_that_is_sent_again_has_its_own_number_for_the_filesystem() -> None:
    """The bit stays in the reply, where the kernel looks for it (fuse_resend(), Linux 6.9)."""
    filesystem = MemoryFilesystem()
    again = UNIQUE | wire.FUSE_UNIQUE_RESEND
    body = wire.fuse_open_in.pack()
    reply = session(filesystem).handle(request(14, body, nodeid=FILE, unique=again))
    assert wire.fuse_out_header.unpack(whole(reply))["unique"] == again
    assert filesystem.calls == [("open", CALLER, FILE, 0)]
    body = wire.fuse_read_in.pack(fh=77, size=9, read_flags=wire.FUSE_READ_LOCKOWNER)
    reply = session(filesystem).handle(request(15, body, nodeid=FILE, unique=again))
    assert wire.fuse_out_header.unpack(whole(reply))["unique"] == again
    assert filesystem.calls[1:] == [("read", CALLER.pid, UNIQUE, FILE, 77, 0, 9)]


def test_unique_0_is_never_answered_with_an_error() -> None:
    """The kernel would take it for a notification, and the errno for its code."""
    assert session().handle(request(16, unique=0)) is None
    assert session().handle(request(1, b"bad", unique=0)) is None


@given(st.binary(max_size=200))
def test_any_bytes_never_raise(junk: bytes) -> None:
    """What answers, answers to the `unique` it was given, with its own length."""
    _check_any(memoryview(junk))


@given(
    st.sampled_from([*sorted(BY_OPCODE), 0, 54, 99999]),
    st.binary(max_size=120),
    st.integers(0, (1 << 64) - 1),
    st.sampled_from([0, ROOT, FILE, LINK, DIRECTORY, MISSING, (1 << 64) - 1]),
)
def test_any_body_never_raises(opcode: int, body: bytes, unique: int, nodeid: int) -> None:
    """The same with a true header, so that the bodies are reached."""
    _check_any(request(opcode, body, unique=unique, nodeid=nodeid))


def _check_any(message: memoryview) -> None:
    filesystem = MemoryFilesystem(names=[b"a", b"b" * 255])
    reply = session(filesystem).handle(message)
    if reply is not None:
        header = wire.fuse_out_header.unpack(whole(reply))
        assert header["unique"] == wire.fuse_in_header.unpack(message)["unique"]


def test_the_forgets_are_the_only_handled_requests_without_reply() -> None:
    """Everything else that is handled is waited for by somebody."""
    silent = [operation.opcode for operation in named(Answer.HANDLED_WITHOUT_REPLY)]
    assert tuple(silent) == FORGETS
