"""Proves: an address is what the user wrote, or is refused with what to write."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.errors import ProcscopeError
from procscope.linux.address import Address


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        (":9464", "", 9464),
        ("127.0.0.1:1", "127.0.0.1", 1),
        ("[::]:9464", "::", 9464),
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("[fd00::1]:65535", "fd00::1", 65535),
    ],
)
def test_what_is_written(text: str, host: str, port: int) -> None:
    assert Address.parse(text) == Address(host, port)
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "9464",
        ":",
        ":65536",
        ":-1",
        "::1:9464",
        "[127.0.0.1]:1",
        "localhost:1",
        ":9²",
        ":http",
        "[::1]",
        "[]x:1:2",
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(ProcscopeError, match="cannot listen at") as caught:
        Address.parse(text)
    assert ":9464" in caught.value.hint


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        address = Address.parse(text)
    except ProcscopeError:
        return
    assert Address.parse(str(address)) == address


def test_every_address_is_reached_by_both_families() -> None:
    with Address("", 0).listen() as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=2):
            pass
        if listener.family == socket.AF_INET6:
            with socket.create_connection(("::1", port), timeout=2):
                pass


def test_one_in_use_is_refused() -> None:
    with Address("127.0.0.1", 0).listen() as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ProcscopeError, match="Address already in use"):
            Address("127.0.0.1", port).listen()


def test_one_that_is_not_here_is_refused() -> None:
    with pytest.raises(ProcscopeError, match=r"cannot listen at 192\.0\.2\.1:1"):
        Address("192.0.2.1", 1).listen()
