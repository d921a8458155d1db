"""Sockets, and the HTTP servers behind them: how they start, and how they end without a failure."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import uvicorn

from procscope.errors import ProcscopeError
from procscope.kubernetes.webhook import Probes

_KEPT_ALIVE_S: Final = 120
"""Longer than Go's HTTP client keeps an idle connection (90 s): the API server closes it first, and
never sends a request into one that is just being closed here."""
_LAST_REQUESTS_S: Final = 10
_BACKLOG: Final = 1024

log = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    """One that leaves signals to its owner."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """An application on a socket, with TLS or without."""

    def __init__(
        self, application: Probes, listener: socket.socket, context: ssl.SSLContext | None = None
    ) -> None:
        self._listener = listener
        self._server = _Server(
            uvicorn.Config(
                application,
                loop="asyncio",
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=_BACKLOG,
                timeout_keep_alive=_KEPT_ALIVE_S,
                timeout_graceful_shutdown=_LAST_REQUESTS_S,
                ssl_context_factory=(lambda *_: context) if context else None,
            )
        )

    async def run(self) -> None:
        """Serve until told to stop; close the socket."""
        await self._server.serve(sockets=[self._listener])

    def stop(self) -> None:
        """Take no more connections, answer the requests in flight, and let `run` return."""
        self._server.should_exit = True


def listen(address: str) -> socket.socket:
    """Return a socket that listens on `[HOST]:PORT`. Raises ProcscopeError.

    Without HOST it takes IPv4 and IPv6 alike, as far as the machine has them. The socket tells
    which port it is, if 0 was asked for.
    """
    host, port = parse_address(address)
    try:
        listener = _bound(host, port)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ProcscopeError(f"cannot listen on {address}: {reason}") from None
    # Connections inherit it. asyncio sets it for sockets that it has made itself, and without it
    # the second part of a response waits up to 40 ms for the first one to be acknowledged.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _bound(host: str, port: int) -> socket.socket:
    if host:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    try:
        return socket.create_server(
            ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG
        )
    except (OSError, ValueError):
        # IPv6 is switched off, in the kernel or for this network namespace.
        return socket.create_server(("", port), backlog=_BACKLOG)


def parse_address(address: str) -> tuple[str, int]:
    """Return host and port of `[HOST]:PORT`, an IPv6 host in brackets. Raises ProcscopeError."""
    host, colon, port = address.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    in_range = port.isascii() and port.isdigit() and int(port) <= 65535
    if not colon or not in_range or (":" in bare and bare == host):
        raise ProcscopeError(
            f"{address!r} is no address to listen on",
            hint="write :8443, 127.0.0.1:8443 or [::]:8443",
        )
    return bare, int(port)


async def serve_until(
    stop: asyncio.Event, servers: Sequence[HttpServer], drain_s: float, hurry: asyncio.Event
) -> None:
    """Run the servers; after `stop` go on for `drain_s`, or until `hurry`, and end the first ones
    before the last.
    """
    running = [asyncio.create_task(server.run()) for server in servers]
    told = asyncio.create_task(_wait(stop))
    try:
        await asyncio.wait([told, *running], return_when=asyncio.FIRST_COMPLETED)
        if told.done():
            try:
                await asyncio.wait_for(hurry.wait(), drain_s)
            except TimeoutError:
                pass
        # Whoever asks for health is answered until the last admission is.
        for server, task in zip(servers, running, strict=True):
            server.stop()
            await task
    finally:
        for task in (told, *running):
            task.cancel()


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
