"""The keeper: what it holds, for whom, and what it makes of packets that are none of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.daemon import keeper, sockets
from procscope.daemon.keeper import Keeper, RequestError, parse_request

MOUNTPOINT = "/var/lib/procscope"
ROOT = 0
SOMEBODY = 4711


@pytest.fixture
def holder() -> Iterator[Keeper]:
    one = Keeper(MOUNTPOINT)
    yield one
    one.release()


def packet(operation: str, **members: object) -> bytes:
    return json.dumps(
        {"protocol": keeper.PROTOCOL, "op": operation, "mountpoint": MOUNTPOINT, **members}
    ).encode()


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
    assert (reply["ok"], sent) == (True, [])
    reply, sent = holder.answer(packet("get"), [], ROOT)
    assert reply["names"] == ["a", "b"]
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
    assert (reply["pid"], reply["names"], sent) == (os.getpid(), ["a"], [])


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
    assert "ending" not in reply
    holder.ending = True
    reply, _ = holder.answer(packet("put", names=["a"]), [refused], ROOT)
    assert (reply["ok"], is_open(refused)) == (False, False)
    reply, _ = holder.answer(packet("hello"), [], ROOT)
    assert (reply["ending"], holder.was_got) == (True, False)
    _, sent = holder.answer(packet("get"), [], ROOT)
    assert (sent, holder.was_got) == ([kept], True)


def test_drop_ends_it(holder: Keeper) -> None:
    fd = memfd(b"")
    holder.answer(packet("put", names=["a"]), [fd], ROOT)
    reply, _ = holder.answer(packet("drop"), [], ROOT)
    assert reply["ok"] is True
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
        (b"\xff", ROOT, "no request"),
    ],
)
def test_a_refused_request_changes_nothing(holder: Keeper, data: bytes, uid: int, why: str) -> None:
    kept, offered = memfd(b"kept"), memfd(b"offered")
    holder.answer(packet("put", names=["kept"]), [kept], ROOT)
    reply, sent = holder.answer(data, [offered], uid)
    assert reply["ok"] is False
    assert why in str(reply["error"])
    assert (sent, holder.held) == ([], {"kept": kept})
    assert not is_open(offered)


def test_a_later_protocol_may_say_more(holder: Keeper) -> None:
    """A keeper of this release serves daemons of later ones."""
    message = {"protocol": 99, "op": "hello", "mountpoint": MOUNTPOINT, "colour": "blue"}
    reply, _ = holder.answer(json.dumps(message).encode(), [], ROOT)
    assert (reply["ok"], reply["protocol"]) == (True, keeper.PROTOCOL)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=10), children, max_size=4)
    ),
)


@given(
    st.binary(max_size=200)
    | st.fixed_dictionaries({}, optional={"op": JSON, "mountpoint": JSON, "names": JSON}).map(
        lambda message: json.dumps(message).encode()
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
