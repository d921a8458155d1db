"""What the kernel sends is understood as <linux/fuse.h> says, and what is answered it accepts.

The second decoder here knows nothing of the first: it is written from the header's structs alone.
"""

from __future__ import annotations

import errno
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from procscope.fuse.trace import describe_request
from tests.fuzz.requests import check_reply
from tests.integration import hostilecalls
from tests.integration.agents import agent
from tests.integration.attacks import user_namespace_root
from tests.integration.cgroups import container
from tests.integration.recording import Exchange, recording

MIB = 1 << 20
HEADER = struct.Struct("=IIQQIIIHH")
MOST_READ_BYTES = 1 << 20
RESEND = 1 << 63

# From struct fuse_*_in: the numbers that follow the header, for the requests that are answered.
GETATTR, OPEN = struct.Struct("=IIQ"), struct.Struct("=II")
READ, RELEASE = struct.Struct("=QQIIQII"), struct.Struct("=QIIQ")
READ_LOCKOWNER, GETATTR_FH, WRITING = 2, 1, 0o3 | 0o100 | 0o1000 | 0o2000
SILENT = (2, 36, 41, 42)  # FORGET, INTERRUPT, NOTIFY_REPLY, BATCH_FORGET
CHANGING = {4, 6, 8, 9, 10, 11, 12, 13, 16, 21, 24, 35, 43, 45, 47, 51}


@pytest.fixture(scope="module")
def recorded() -> list[Exchange]:
    """All requests that a host's reader, a container's root and a user namespace's root cause."""
    with recording() as (mount, found), container(memory_bytes=100 * MIB, cpus=1) as group:
        for who in (agent(), agent(group), user_namespace_root(group)):
            with who as one:
                assert one.call(hostilecalls.use_everything, str(mount)) > 1000
        with agent(group) as one:
            one.call(hostilecalls.read_while_interrupted, str(mount / "proc/meminfo"), 200)
    return found


def opcode_of(exchange: Exchange) -> int:
    return int(HEADER.unpack_from(exchange.request)[1])


def test_every_reply_was_accepted(recorded: list[Exchange]) -> None:
    """write(2) took all of it; ENOENT alone is allowed, for a request that was interrupted."""
    odd = Counter(
        (opcode_of(one), one.written)
        for one in recorded
        if one.written not in (len(one.reply), -errno.ENOENT)
    )
    assert odd == {}
    assert sum(one.written == len(one.reply) for one in recorded) > len(recorded) * 0.9
    for one in recorded:
        check_reply(one.request, one.reply or None)


def test_a_reply_is_missing_only_where_none_is_due(recorded: list[Exchange]) -> None:
    for one in recorded:
        assert bool(one.reply) == (opcode_of(one) not in SILENT), describe_request(
            memoryview(one.request)
        )


def test_many_kinds_of_requests_were_sent(recorded: list[Exchange]) -> None:
    """Else the other tests would prove little."""
    seen = {opcode_of(one) for one in recorded}
    assert seen >= {1, 3, 5, 14, 15, 17, 18, 27, 28, 29} | {4, 6, 8, 9, 11, 21, 22, 24, 35, 39}
    errors = {struct.unpack_from("=i", one.reply, 4)[0] for one in recorded if one.reply}
    assert {0, -errno.ENOENT, -errno.EROFS, -errno.EINVAL, -errno.ENOSYS} <= errors


def test_what_would_change_something_reached_no_filesystem(recorded: list[Exchange]) -> None:
    for one in recorded:
        if opcode_of(one) in CHANGING:
            assert one.calls == ()
            assert struct.unpack_from("=i", one.reply, 4)[0] == -errno.EROFS


def test_what_was_asked_of_the_filesystem_is_what_the_kernel_asked(
    recorded: list[Exchange],
) -> None:
    """Method, caller, node and every number of each request, by the second decoder."""
    compared: Counter[str] = Counter()
    for one in recorded:
        expected = list(second_decoder(one.request))
        asked = [(name, plain(arguments)) for name, arguments in one.calls]
        assert asked == expected, describe_request(memoryview(one.request))
        compared.update(name for name, _ in asked)
    assert {"lookup", "getattr", "open", "read", "release", "readdir"} <= compared.keys()


def test_the_tracer_names_every_request(recorded: list[Exchange]) -> None:
    for one in recorded:
        line = describe_request(memoryview(one.request))
        assert not line.startswith("opcode "), line
        assert "cut off" not in line, line


def plain(arguments: tuple[Any, ...]) -> tuple[object, ...]:
    """Arguments as numbers and bytes."""
    caller, *rest = arguments
    if isinstance(caller, int):
        return (caller, *rest)
    return (caller.pid, caller.uid, caller.gid, *rest)


def second_decoder(request: bytes) -> Iterator[tuple[str, tuple[object, ...]]]:
    """The call of a filesystem that a request asks for, if any, from the uapi header's structs."""
    length, opcode, unique, node, uid, gid, pid, _, _ = HEADER.unpack_from(request)
    assert length == len(request)
    callers = {"read": (pid, unique & ~RESEND), "release": ()}
    body = request[HEADER.size :]
    decode = DECODERS.get(opcode)
    for name, arguments in decode(body) if decode else ():
        yield name, (*callers.get(name, (pid, uid, gid)), node, *arguments)
    if opcode == 2:
        yield "forget", (node, struct.unpack("=Q", body)[0])
    if opcode == 42:
        for pair in struct.iter_unpack("=QQ", body[8 : 8 + 16 * struct.unpack_from("=I", body)[0]]):
            yield "forget", pair


Calls = Iterator[tuple[str, tuple[object, ...]]]


def _lookup(body: bytes) -> Calls:
    yield "lookup", (body[: body.index(0)],)


def _getattr(body: bytes) -> Calls:
    flags, _, fh = GETATTR.unpack(body)
    yield "getattr", (fh if flags & GETATTR_FH else None,)


def _access(body: bytes) -> Calls:
    yield "access", (struct.unpack_from("=I", body)[0],)


def _open(body: bytes) -> Calls:
    flags, _ = OPEN.unpack(body)
    if not flags & WRITING:
        yield "open", (flags,)


def _read(body: bytes) -> Calls:
    fh, offset, size, read_flags, *_ = READ.unpack(body)
    if read_flags & READ_LOCKOWNER and size and offset < 1 << 63:
        yield "read", (fh, offset, min(size, MOST_READ_BYTES))


def _release(name: str) -> Callable[[bytes], Calls]:
    def decode(body: bytes) -> Calls:
        yield name, (RELEASE.unpack(body)[0],)

    return decode


def _readdir(*, plus: bool) -> Callable[[bytes], Calls]:
    def decode(body: bytes) -> Calls:
        fh, offset, *_ = READ.unpack(body)
        if offset < 1 << 63:
            yield "readdir", (fh, offset, plus)

    return decode


def _simple(name: str) -> Callable[[bytes], Calls]:
    def decode(body: bytes) -> Calls:
        del body
        yield name, ()

    return decode


DECODERS: Mapping[int, Callable[[bytes], Calls]] = {
    1: _lookup,
    3: _getattr,
    5: _simple("readlink"),
    14: _open,
    15: _read,
    17: _simple("statfs"),
    18: _release("release"),
    27: _simple("opendir"),
    28: _readdir(plus=False),
    29: _release("releasedir"),
    34: _access,
    44: _readdir(plus=True),
}
