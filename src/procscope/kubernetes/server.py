"""Sockets, and the HTTP servers behind them: how they start, and how they end without a failure."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import uvicorn

from procscope.kubernetes.webhook import Probes
from procscope.linux.address import Address

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


def listen(address: Address) -> socket.socket:
    """Return a socket that listens at the address. Raises ProcscopeError.

    The socket tells which port it is, if 0 was asked for.
    """
    listener = address.listen()
    # Connections inherit it. asyncio sets it for sockets that it has made itself, and without it
    # the second part of a response waits up to 40 ms for the first one to be acknowledged.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


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
