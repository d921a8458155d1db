"""Elects one replica: the holder of a Lease leads.

The protocol is that of Kubernetes' own components: `coordination.k8s.io/v1`, changed by replacing
it with the resourceVersion that was read, so that of two who try one gets a conflict. Whether a
Lease has run out is measured here, from when its last change was seen: clocks of other machines
are not to be trusted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from lightkube import AsyncClient
from lightkube.models.coordination_v1 import LeaseSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.coordination_v1 import Lease
from lightkube.types import PatchType

from procscope.kubernetes.cluster import NOT_FOUND, ClusterError, status_of

DURATION_S: Final = 15
"""How long a Lease that is not renewed keeps others from leading."""
_RENEWED_FOR_S: Final = 10.0
"""A leader that could not renew for so long stops leading, before somebody else may start."""


class Elector:
    """Tries to lead, each time it is asked."""

    def __init__(
        self,
        client: AsyncClient,
        name: str,
        identity: str,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._name = name
        self._identity = identity
        self._clock = clock
        self._renewed_s = float("-inf")
        self._seen_version = ""
        self._seen_s = 0.0

    @property
    def leading(self) -> bool:
        """Whether this replica leads at this moment, for all it knows."""
        return self._clock() - self._renewed_s < _RENEWED_FOR_S

    async def campaign(self) -> bool:
        """Renew or take the Lease if that may be; tell whether this replica leads.

        Raises what `ClusterError` lists, a conflict included; `leading` is still right then.
        """
        # Taken before the request: what it grants counts from when it was sent at the latest.
        asked_s = self._clock()
        lease = await self._read()
        metadata, spec = lease.metadata or ObjectMeta(), lease.spec or LeaseSpec()
        version = metadata.resourceVersion or ""
        if version != self._seen_version:
            self._seen_version, self._seen_s = version, asked_s
        holder = spec.holderIdentity or ""
        if holder not in ("", self._identity):
            self._renewed_s = float("-inf")
            if asked_s - self._seen_s < (spec.leaseDurationSeconds or DURATION_S):
                return False
        now = datetime.now(UTC)
        if holder != self._identity:
            spec.acquireTime = now
            spec.leaseTransitions = (spec.leaseTransitions or 0) + 1
        spec.holderIdentity = self._identity
        spec.leaseDurationSeconds = DURATION_S
        spec.renewTime = now
        await self._client.replace(Lease(metadata=metadata, spec=spec))
        self._renewed_s = asked_s
        return True

    async def resign(self) -> None:
        """Give the Lease up, so that the next one need not wait for its end."""
        if not self.leading:
            return
        self._renewed_s = float("-inf")
        lease = await self._client.get(Lease, self._name)
        if lease.spec is not None and lease.spec.holderIdentity == self._identity:
            lease.spec.holderIdentity = ""
            lease.spec.leaseDurationSeconds = 1
            await self._client.replace(lease)

    async def _read(self) -> Lease:
        try:
            return await self._client.get(Lease, self._name)
        except ClusterError as error:
            if status_of(error) != NOT_FOUND:
                raise
        # Not a POST: see the rights in `procscope.kubernetes.cluster`.
        empty = Lease(metadata=ObjectMeta(name=self._name))
        return await self._client.patch(
            Lease, self._name, empty, patch_type=PatchType.APPLY, force=True
        )
