"""Proves: each path gets its answer, and garbage gets none that matters."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator

import pytest

from procscope.daemon.report import server
from procscope.linux.address import Address


@pytest.fixture
def port() -> Iterator[int]:
    routes: server.Routes = {
        "/good": lambda: server.verdict(""),
        "/bad": lambda: server.verdict("all is lost"),
        "/metrics": lambda: server.metrics("a 1\n"),
    }
    one = server.ReportServer(Address("127.0.0.1", 0).listen(), routes)
    thread = threading.Thread(target=one.serve_forever, args=(0.01,))
    thread.start()
    yield one.socket.getsockname()[1]
    one.shutdown()
    thread.join()
    one.server_close()


def get(port: int, path: str, method: str = "GET") -> tuple[int, str, str | None]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request(method, path)
        reply = connection.getresponse()
        return reply.status, reply.read().decode(), reply.getheader("Content-Type")
    finally:
        connection.close()


def test_each_path(port: int) -> None:
    plain = "text/plain; charset=utf-8"
    assert get(port, "/good") == (200, "ok\n", plain)
    assert get(port, "/good?verbose=1") == (200, "ok\n", plain)
    assert get(port, "/bad") == (503, "all is lost\n", plain)
    assert get(port, "/metrics")[2] == "text/plain; version=0.0.4; charset=utf-8"
    assert get(port, "/goo")[0] == 404
    assert get(port, "/good", "HEAD")[:2] == (200, "")
    assert get(port, "/good", "POST")[0] == 501


def test_garbage(port: int) -> None:
    for data in (b"\x16\x03\x01\x00\r\n\r\n", b"GET\r\n\r\n", b"\0" * 100 + b"\n\n"):
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
    assert get(port, "/good")[0] == 200


def test_who_says_nothing_keeps_nobody_waiting(port: int) -> None:
    silent = [socket.create_connection(("127.0.0.1", port), timeout=2) for _ in range(40)]
    for connection in silent:
        connection.close()
    assert get(port, "/good")[0] == 200
