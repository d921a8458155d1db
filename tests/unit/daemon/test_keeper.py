"""The keeper: what it holds, for whom, and what it makes of packets that are none of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.daemon import fields, keeper, sockets
from procscope.daemon.fields import every, first
from procscope.daemon.keeper import Keeper, RequestError, parse_request

MOUNTPOINT = "/var/lib/procscope"
ROOT = 0
SOMEBODY = 4711


@pytest.fixture
def holder() -> Iterator[Keeper]:
    one = Keeper(MOUNTPOINT)
    yield one
    one.release()


def packet(operation: str, names: Sequence[str] = (), protocol: int = keeper.PROTOCOL) -> bytes:
    said = [("protocol", str(protocol)), ("op", operation), ("mountpoint", MOUNTPOINT)]
    return fields.pack([*said, *(("name", name) for name in names)])


def memfd(content: bytes) -> int:
    fd = os.memfd_create("test")
    os.write(fd, content)
    return fd


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_what_is_put_is_got(holder: Keeper) -> None:
    one, two = memfd(b"one"), memfd(b"two")
    reply, sent = holder.answer(packet("put", names=["a", "b"]), [one, two], ROOT)
    assert (first(reply, "ok"), sent) == ("", [])
    reply, sent = holder.answer(packet("get"), [], ROOT)
    assert every(reply, "name") == ["a", "b"]
    assert [os.pread(fd, 10, 0) for fd in sent] == [b"one", b"two"]


def test_what_was_held_before_is_closed(holder: Keeper) -> None:
    old, new = memfd(b"old"), memfd(b"new")
    holder.answer(packet("put", names=["a"]), [old], ROOT)
    holder.answer(packet("put", names=["a"]), [new], ROOT)
    assert not is_open(old)
    assert holder.held == {"a": new}


def test_hello_sends_no_descriptor(holder: Keeper) -> None:
    holder.answer(packet("put", names=["a"]), [memfd(b"")], ROOT)
    reply, sent = holder.answer(packet("hello"), [], ROOT)
    assert (first(reply, "pid"), every(reply, "name"), sent) == (str(os.getpid()), ["a"], [])


def test_one_that_lasts_lets_go_and_stays(holder: Keeper) -> None:
    holder.lasts = True
    fd = memfd(b"")
    holder.answer(packet("put", names=["a"]), [fd], ROOT)
    holder.answer(packet("drop"), [], ROOT)
    assert (holder.ended, holder.held, is_open(fd)) == (False, {}, False)


def test_one_that_is_ending_only_gives_out(holder: Keeper) -> None:
    kept, refused = memfd(b"kept"), memfd(b"refused")
    holder.answer(packet("put", names=["a"]), [kept], ROOT)
    reply, _ = holder.answer(packet("hello"), [], ROOT)
    assert first(reply, "ending") is None
    holder.ending = True
    reply, _ = holder.answer(packet("put", names=["a"]), [refused], ROOT)
    assert (first(reply, "ok"), is_open(refused)) == (None, False)
    reply, _ = holder.answer(packet("hello"), [], ROOT)
    assert (first(reply, "ending"), holder.was_got) == ("", False)
    _, sent = holder.answer(packet("get"), [], ROOT)
    assert (sent, holder.was_got) == ([kept], True)


def test_drop_ends_it(holder: Keeper) -> None:
    fd = memfd(b"")
    holder.answer(packet("put", names=["a"]), [fd], ROOT)
    reply, _ = holder.answer(packet("drop"), [], ROOT)
    assert first(reply, "ok") is not None
    assert holder.ended
    assert not is_open(fd)


@pytest.mark.parametrize(
    ("data", "uid", "why"),
    [
        (packet("get"), SOMEBODY, "not root"),
        (packet("get").replace(b"procscope", b"lxcfs"), ROOT, "this keeper is for"),
        (packet("put", names=["a", "b"]), ROOT, "2 names for 1 descriptors"),
        (packet("put", names=["a", "a"]), ROOT, "a name comes twice"),
        (packet("explode"), ROOT, "unknown operation 'explode'"),
        (packet("put", names=["a", ""]), ROOT, "no name of a descriptor"),
        (packet("put", names=["a", "b" * 65]), ROOT, "no name of a descriptor"),
        (b"op=hello", ROOT, "a request has an op and a mountpoint"),
        (b"\xff", ROOT, "no request"),
        (b"", ROOT, "no request"),
    ],
)
def test_a_refused_request_changes_nothing(holder: Keeper, data: bytes, uid: int, why: str) -> None:
    kept, offered = memfd(b"kept"), memfd(b"offered")
    holder.answer(packet("put", names=["kept"]), [kept], ROOT)
    reply, sent = holder.answer(data, [offered], uid)
    assert first(reply, "ok") is None
    assert why in (first(reply, "error") or "")
    assert (sent, holder.held) == ([], {"kept": kept})
    assert not is_open(offered)


def test_a_later_protocol_may_say_more(holder: Keeper) -> None:
    """A keeper of this release serves daemons of later ones."""
    reply, _ = holder.answer(packet("hello", protocol=99) + b"\0colour=blue", [], ROOT)
    assert first(reply, "ok") is not None
    assert first(reply, "protocol") == str(keeper.PROTOCOL)


NAMES = st.sampled_from(["op", "mountpoint", "name", "colour"])
TEXTS = st.text(max_size=80).filter(lambda text: "\0" not in text)


@given(
    st.binary(max_size=200)
    | st.lists(st.tuples(NAMES, TEXTS), max_size=6).map(
        lambda said: fields.pack([("op", "put"), ("mountpoint", MOUNTPOINT), *said])
    )
)
def test_a_packet_is_a_request_or_refused(data: bytes) -> None:
    try:
        request = parse_request(data)
    except RequestError:
        return
    assert all(request.names)
    assert len(set(request.names)) == len(request.names)


def test_without_a_connection_nothing_is_pointless(holder: Keeper) -> None:
    assert not holder.is_pointless()
    assert sockets.MAX_DESCRIPTORS >= 8


def test_a_keeper_imports_little() -> None:
    """One waits beside every daemon, and has what it imports for itself alone."""
    code = "import procscope.daemon.keeper, sys; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    loaded = set(ended.stdout.decode().split())
    assert "procscope.daemon.sockets" in loaded
    assert not {"dataclasses", "json", "logging", "selectors", "socket", "typing"} & loaded
