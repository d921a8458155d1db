"""Puts the webhook together from its options, and runs it."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from lightkube import AsyncClient

from procscope.kubernetes import certificates, cluster
from procscope.kubernetes.elector import Elector
from procscope.kubernetes.lifecycle import Terms
from procscope.kubernetes.metrics import Metrics
from procscope.kubernetes.namespaces import Namespaces, NoNamespaces, WatchedNamespaces
from procscope.kubernetes.publication import Publication
from procscope.kubernetes.readiness import Readiness
from procscope.kubernetes.rotation import Rotation
from procscope.kubernetes.server import HttpServer, listen, serve_until
from procscope.kubernetes.settings import Settings
from procscope.kubernetes.tls import CertificateFiles, ServingCertificate
from procscope.kubernetes.webhook import Probes, Webhook
from procscope.linux.address import Address

_RESTART_S: Final = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CertificatePaths:
    """Certificates that somebody else makes."""

    certificate: str
    key: str


@dataclass(frozen=True, slots=True)
class OwnCertificates:
    """Certificates that the replicas make and renew, and the objects that they need for it."""

    service: str
    secret: str
    lease: str
    webhook_configuration: str
    authority_lifetime: timedelta
    certificate_lifetime: timedelta


@dataclass(frozen=True, slots=True)
class Options:
    """How the webhook is to run. `cluster` False: without access to any API server."""

    settings: Settings
    certificates: CertificatePaths | OwnCertificates
    listen: Address
    health_listen: Address
    drain_s: float
    cluster: bool
    kubeconfig: str | None
    namespace: str | None


def run(options: Options) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code. Raises ProcscopeError."""
    with _listening(options.listen) as listener, _listening(options.health_listen) as health:
        return asyncio.run(_Webhook(options).run(listener, health))


@contextmanager
def _listening(address: Address) -> Iterator[socket.socket]:
    with closing(listen(address)) as listener:
        log.info("listening on %s", Address(*listener.getsockname()[:2]))
        yield listener


class _Webhook:
    """The parts, and the tasks that run them."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._metrics = Metrics()
        self._readiness = Readiness()
        self._serving = ServingCertificate(self._metrics)
        self._readiness.require("no certificate yet", lambda: self._serving.pair is not None)
        self._tasks: list[Callable[[], Awaitable[None]]] = []
        self._endings: list[Callable[[], Awaitable[None]]] = []

    async def run(self, listener: socket.socket, health: socket.socket) -> int:
        """Serve on the sockets until a signal says to end."""
        stop, hurry = asyncio.Event(), asyncio.Event()
        self._on_signals(stop, hurry)
        namespaces = self._prepare()
        webhook = Webhook(self._options.settings, namespaces, self._readiness, self._metrics)
        servers = [
            HttpServer(webhook, listener, self._serving.context),
            HttpServer(Probes(self._readiness, self._metrics), health),
        ]
        tasks = [asyncio.create_task(_for_ever(task)) for task in self._tasks]
        # What lives as long as the process need not be looked at by each full collection, which
        # would take longer than an admission.
        gc.collect()
        gc.freeze()
        try:
            await serve_until(stop, servers, self._options.drain_s, hurry)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for end in self._endings:
                await end()
        return 0

    def _prepare(self) -> Namespaces:
        """Make the parts; what of them is to run goes into lists."""
        chosen = self._options.certificates
        if isinstance(chosen, CertificatePaths):
            files = CertificateFiles(chosen.certificate, chosen.key, self._serving, self._metrics)
            files.load_first()
            self._tasks.append(files.run)
        if not self._options.cluster:
            return NoNamespaces()
        client = cluster.connect(self._options.kubeconfig, self._options.namespace)
        if isinstance(chosen, OwnCertificates):
            self._rotate(client, chosen)
        namespaces = WatchedNamespaces(client, self._metrics)
        self._readiness.require("namespaces are not known yet", namespaces.listed.is_set)
        self._tasks.append(namespaces.run)
        self._endings.append(client.close)
        return namespaces

    def _rotate(self, client: AsyncClient, own: OwnCertificates) -> None:
        terms = Terms(
            names=certificates.service_names(own.service, client.namespace),
            authority_lifetime=own.authority_lifetime,
            certificate_lifetime=own.certificate_lifetime,
        )
        identity = f"{socket.gethostname()}_{uuid.uuid4()}"
        rotation = Rotation(
            client,
            own.secret,
            terms,
            Elector(client, own.lease, identity),
            Publication(client, own.webhook_configuration),
            self._serving,
            self._metrics,
        )
        self._readiness.require(
            f"MutatingWebhookConfiguration {own.webhook_configuration} does not trust it yet",
            lambda: rotation.trusted,
        )
        self._tasks.append(rotation.run)
        self._endings.append(rotation.resign)

    def _on_signals(self, stop: asyncio.Event, hurry: asyncio.Event) -> None:
        """End on a signal; at once on the second one."""

        def told() -> None:
            if stop.is_set():
                hurry.set()
                return
            log.info("ending, after %g s in which requests are still answered", self._drain_s)
            self._readiness.drain()
            stop.set()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, told)

    @property
    def _drain_s(self) -> float:
        return self._options.drain_s


async def _for_ever(task: Callable[[], Awaitable[None]]) -> None:
    """Run a task that has no end; should it fail, the webhook goes on, and so does the task."""
    while True:
        try:
            await task()
        except Exception:
            log.exception("failed, and is started again in %g s", _RESTART_S)
        await asyncio.sleep(_RESTART_S)
