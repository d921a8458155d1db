"""Certificates with nobody's help: each replica serves from one Secret, one of them keeps it.

The Secret, and not a process, says how far a change of authorities has come (`lifecycle`), so that
any replica can go on where another has stopped. Times that have to pass are counted by the one who
leads; a new leader counts again from the start, which only takes longer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Final

from lightkube import AsyncClient
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Secret
from lightkube.types import PatchType

from procscope.kubernetes import lifecycle
from procscope.kubernetes.certificates import CertificateError
from procscope.kubernetes.cluster import CONFLICT, NOT_FOUND, ClusterError, explain, status_of
from procscope.kubernetes.elector import Elector
from procscope.kubernetes.lifecycle import Holding, Terms
from procscope.kubernetes.metrics import Metrics
from procscope.kubernetes.publication import Publication
from procscope.kubernetes.tls import ServingCertificate

_IMPATIENT_S: Final = 1.0
"""How often to look before this replica is ready."""

log = logging.getLogger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


class Rotation:
    """One replica's part in it."""

    def __init__(
        self,
        client: AsyncClient,
        secret: str,
        terms: Terms,
        elector: Elector,
        publication: Publication,
        serving: ServingCertificate,
        metrics: Metrics,
        *,
        now: Callable[[], datetime] = _now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._secret = secret
        self._terms = terms
        self._elector = elector
        self._publication = publication
        self._serving = serving
        self._metrics = metrics
        self._now = now
        self._clock = clock
        self._held: Holding | None = None
        self._authority: tuple[bytes, float] = (b"", 0.0)
        self._trusted = False

    @property
    def trusted(self) -> bool:
        """Whether the configuration was seen to trust what is served here."""
        return self._trusted

    async def run(self) -> None:
        """Take step after step until cancelled."""
        while True:
            await self.step()
            interval_s = self._terms.interval_s
            await asyncio.sleep(interval_s if self._trusted else min(interval_s, _IMPATIENT_S))

    async def step(self) -> None:
        """Do what there is to do now; what cannot be done is logged, and tried again later."""
        await self._attempt(self._campaign())
        await self._attempt(self._keep() if self._elector.leading else self._follow())

    async def resign(self) -> None:
        """Let another replica lead, at the end of this one."""
        await self._attempt(self._elector.resign())
        self._metrics.set_leader(False)

    async def _attempt(self, doing: Coroutine[Any, Any, None]) -> None:
        try:
            await doing
        except ClusterError as error:
            if status_of(error) == CONFLICT:
                log.debug("somebody else was faster: %s", explain(error))
                return
            self._metrics.failed("cluster")
            log.warning("the API server did not do what was asked: %s", explain(error))
        except CertificateError as error:
            self._metrics.failed("certificate")
            log.error("Secret %s: %s", self._secret, error)

    async def _campaign(self) -> None:
        was_leading = self._elector.leading
        try:
            await self._elector.campaign()
        finally:
            leading = self._elector.leading
            self._metrics.set_leader(leading)
            if leading != was_leading:
                log.info("this replica %s", "leads" if leading else "no longer leads")

    async def _follow(self) -> None:
        """Serve what the Secret says."""
        secret = await self._get()
        held = lifecycle.from_data(secret.data) if secret is not None else None
        if held is not None:
            self._use(held)
            await self._look_for_trust(held)

    async def _keep(self) -> None:
        """Serve what the Secret says, publish it, and see to it that it goes on."""
        secret = await self._get() or await self._make()
        held = self._read(secret)
        if held is None:
            held = self._anew()
            await self._replace(secret, held)
            return
        self._use(held)
        # If that cannot be, a certificate of an authority that is published can still be renewed.
        await self._attempt(self._publication.publish(held.bundle()))
        await self._attempt(self._look_for_trust(held))
        following = lifecycle.advanced(
            held,
            self._now(),
            self._terms,
            published=self._publication.published_for_s(held.bundle()) >= self._terms.settling_s,
            overlapped=self._in_use_s(held) >= self._terms.overlap_s,
        )
        if following is not held:
            await self._replace(secret, following)

    def _read(self, secret: Secret) -> Holding | None:
        try:
            return lifecycle.from_data(secret.data)
        except CertificateError as error:
            self._metrics.failed("certificate")
            log.error("Secret %s is of no use and made anew: %s", self._secret, error)
            return None

    def _anew(self) -> Holding:
        if self._held is None:
            return lifecycle.first(self._now(), self._terms)
        log.warning("Secret %s has lost what it held; another authority takes over", self._secret)
        return lifecycle.restored(self._held, self._now(), self._terms)

    def _in_use_s(self, held: Holding) -> float:
        """For how long this replica has known the authority that signs now."""
        certificate, since_s = self._authority
        if certificate != held.authority.certificate:
            since_s = self._clock()
            self._authority = (held.authority.certificate, since_s)
        return self._clock() - since_s

    def _use(self, held: Holding) -> None:
        self._serving.use(held.serving)
        self._held = held

    async def _look_for_trust(self, held: Holding) -> None:
        if not self._trusted:
            self._trusted = await self._publication.trusts(held.authority.certificate)

    async def _get(self) -> Secret | None:
        try:
            return await self._client.get(Secret, self._secret)
        except ClusterError as error:
            if status_of(error) != NOT_FOUND:
                raise
            return None

    async def _make(self) -> Secret:
        # Not a POST: see the rights in `procscope.kubernetes.cluster`.
        empty = Secret(metadata=ObjectMeta(name=self._secret), type="Opaque")
        return await self._client.patch(
            Secret, self._secret, empty, patch_type=PatchType.APPLY, force=True
        )

    async def _replace(self, secret: Secret, held: Holding) -> None:
        """Write what the Secret is to hold, unless somebody has written since it was read."""
        secret.data = lifecycle.to_data(held)
        await self._client.replace(secret)
        log.info("Secret %s was brought up to date", self._secret)
        self._use(held)
