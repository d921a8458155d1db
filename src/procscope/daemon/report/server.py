"""`/healthz`, `/readyz` and `/metrics`, each answered in a thread."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeAlias

from procscope.daemon.report.metrics import CONTENT_TYPE
from procscope.values import frozen

_TEXT = "text/plain; charset=utf-8"
_TIMEOUT_S = 5.0
_AT_ONCE = 32
"""Connections; more are closed at once."""


@frozen
class Reply:
    """What one path answers."""

    status: HTTPStatus
    text: str
    content_type: str = _TEXT


_Request: TypeAlias = socket.socket | tuple[bytes, socket.socket]
Routes = Mapping[str, Callable[[], Reply]]


def verdict(problem: str) -> Reply:
    """Return "ok", or 503 with what is wrong."""
    if problem:
        return Reply(HTTPStatus.SERVICE_UNAVAILABLE, f"{problem}\n")
    return Reply(HTTPStatus.OK, "ok\n")


def metrics(text: str) -> Reply:
    """Return Prometheus' text."""
    return Reply(HTTPStatus.OK, text, CONTENT_TYPE)


class ReportServer(ThreadingHTTPServer):
    """Answers on a socket that listens already."""

    daemon_threads = True

    def __init__(self, listener: socket.socket, routes: Routes) -> None:
        """Take over the socket."""
        self.routes = routes
        self._free = threading.BoundedSemaphore(_AT_ONCE)
        super().__init__(listener.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener

    def process_request(self, request: _Request, client_address: object) -> None:
        """Answer in a new thread, if there may be one more."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: _Request, client_address: object) -> None:
        """Answer, and let the next one have the thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: _Request, client_address: object) -> None:
        """Say nothing: whoever asked has hung up, or sends what is no HTTP."""


class _Handler(BaseHTTPRequestHandler):
    timeout = _TIMEOUT_S

    def do_GET(self) -> None:
        """Answer with what the path stands for."""
        assert isinstance(self.server, ReportServer)
        route = self.server.routes.get(self.path.partition("?")[0])
        reply = Reply(HTTPStatus.NOT_FOUND, "not found\n") if route is None else route()
        body = reply.text.encode("utf-8", "replace")
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the base class's name

    def version_string(self) -> str:
        """Say no more than the name."""
        return "procscope"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Probes come every few seconds, and are not worth a line."""
