"""Keeps the `caBundle` of a MutatingWebhookConfiguration current, and tells for how long it is."""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Callable

from lightkube import AsyncClient
from lightkube.models.admissionregistration_v1 import MutatingWebhook
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.admissionregistration_v1 import MutatingWebhookConfiguration
from lightkube.types import PatchType

from procscope.kubernetes.certificates import CertificateError, split_bundle

log = logging.getLogger(__name__)


class Publication:
    """The authorities that API servers trust this webhook by."""

    def __init__(
        self, client: AsyncClient, name: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._name = name
        self._clock = clock
        self._bundle = b""
        self._since_s: float | None = None

    async def publish(self, bundle: bytes) -> None:
        """Have every webhook of the configuration trust `bundle` and nothing else.

        Raises what `ClusterError` lists; a conflict with another change is one of these.
        """
        configuration = await self._get()
        if self._is_trusted_alone(configuration, bundle):
            return
        # What was there before may have been trusted by nobody: count anew.
        self._since_s = None
        await self._patch(configuration, bundle)
        log.info("%s: the caBundle was brought up to date", self._name)

    def published_for_s(self, bundle: bytes) -> float:
        """For how long `bundle` has been found there each time; 0 if it never was."""
        if bundle != self._bundle or self._since_s is None:
            return 0.0
        return self._clock() - self._since_s

    async def trusts(self, authority: bytes) -> bool:
        """Whether all webhooks of the configuration trust `authority`. Raises ClusterError's."""
        webhooks = _webhooks(await self._get())
        # Whatever form it was written in.
        wanted = set(split_bundle(authority))
        return bool(webhooks) and all(wanted <= _trusted(webhook) for webhook in webhooks)

    async def _get(self) -> MutatingWebhookConfiguration:
        return await self._client.get(MutatingWebhookConfiguration, self._name)

    def _is_trusted_alone(self, configuration: MutatingWebhookConfiguration, bundle: bytes) -> bool:
        encoded = _encode(bundle)
        webhooks = _webhooks(configuration)
        if not all(webhook.clientConfig.caBundle == encoded for webhook in webhooks):
            return False
        if self._bundle != bundle or self._since_s is None:
            self._bundle, self._since_s = bundle, self._clock()
        return True

    async def _patch(self, configuration: MutatingWebhookConfiguration, bundle: bytes) -> None:
        metadata = configuration.metadata or ObjectMeta()
        encoded = _encode(bundle)
        # Merged into the webhooks of these names; everything else in them is somebody else's.
        patch = {
            "metadata": {"resourceVersion": metadata.resourceVersion},
            "webhooks": [
                {"name": webhook.name, "clientConfig": {"caBundle": encoded}}
                for webhook in _webhooks(configuration)
            ],
        }
        await self._client.patch(
            MutatingWebhookConfiguration, self._name, patch, patch_type=PatchType.STRATEGIC
        )


def _webhooks(configuration: MutatingWebhookConfiguration) -> list[MutatingWebhook]:
    return list(configuration.webhooks or ())


def _encode(bundle: bytes) -> str:
    return base64.b64encode(bundle).decode()


def _trusted(webhook: MutatingWebhook) -> set[bytes]:
    try:
        return set(split_bundle(base64.b64decode(webhook.clientConfig.caBundle or "")))
    except (CertificateError, ValueError):
        return set()
