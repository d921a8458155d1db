"""Proves: a socket that is listened on sends each part of a response at once."""

from __future__ import annotations

import socket
from contextlib import closing

from procscope.kubernetes.server import listen
from procscope.linux.address import Address


def test_the_parts_of_a_response_do_not_wait_for_each_other() -> None:
    with (
        closing(listen(Address("127.0.0.1", 0))) as listener,
        socket.create_connection(listener.getsockname()),
        closing(listener.accept()[0]) as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
