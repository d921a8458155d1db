"""Proves: an address to listen on means what is written, and what is none is named."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.errors import ProcscopeError
from procscope.kubernetes.server import listen, parse_address


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        (":8443", "", 8443),
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("[::1]:65535", "::1", 65535),
        ("localhost:80", "localhost", 80),
    ],
)
def test_an_address_is_a_host_and_a_port(address: str, host: str, port: int) -> None:
    assert parse_address(address) == (host, port)


@pytest.mark.parametrize(
    "address", ["", "8443", ":", ":http", ":65536", ":-1", "::1:80", "[::1]", ":٣", "[]x:1:2"]
)
def test_what_is_no_address_is_named(address: str) -> None:
    with pytest.raises(ProcscopeError, match="no address to listen on"):
        parse_address(address)


@given(st.text(max_size=12))
def test_any_text_is_an_address_or_one_named_error(text: str) -> None:
    try:
        _, port = parse_address(text)
    except ProcscopeError:
        return
    assert 0 <= port <= 65535


def test_without_a_host_every_protocol_is_answered() -> None:
    with closing(listen(":0")) as listener:
        port = listener.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            if host == "::1" and listener.family is not socket.AF_INET6:
                continue
            with socket.create_connection((host, port)):
                pass


def test_the_parts_of_a_response_do_not_wait_for_each_other() -> None:
    with (
        closing(listen("127.0.0.1:0")) as listener,
        socket.create_connection(listener.getsockname()),
        closing(listener.accept()[0]) as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_port_that_is_taken_is_named() -> None:
    with closing(listen("127.0.0.1:0")) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ProcscopeError, match=f"{address}: Address already in use"):
            listen(address)


def test_a_host_that_is_not_here_is_named() -> None:
    with pytest.raises(ProcscopeError, match=r"cannot listen on 192\.0\.2\.1:1"):
        listen("192.0.2.1:1")
