"""What is known of the cluster's namespaces: a watch, and a question where it knows nothing yet."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Mapping
from typing import Final, Protocol

from lightkube import AsyncClient
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Namespace

from procscope.kubernetes.cluster import NOT_FOUND, ClusterError, explain, status_of
from procscope.kubernetes.metrics import Metrics
from procscope.kubernetes.settings import UNKNOWN, NamespaceFacts

_NAME: Final = re.compile("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""A DNS label, as of every namespace."""
_QUESTION_S: Final = 1.0
"""An API server waits for an admission for 3 s, if it is told so; some of it is for the answer."""
_SILENT_S: Final = 5.0
"""After a question that went unanswered, none is asked for so long."""
_RENEWED_S: Final = 120.0
"""A watch is begun anew so often, for its connection may be dead without anybody saying so."""
_RETRY_S: Final = 1.0

log = logging.getLogger(__name__)


class Namespaces(Protocol):
    """Where admission learns of a namespace."""

    async def facts(self, name: str) -> NamespaceFacts:
        """Return what is known of the namespace; never raises for want of an answer."""
        ...


class NoNamespaces:
    """Of use without a cluster: nothing is known of any namespace."""

    async def facts(self, name: str) -> NamespaceFacts:
        """Return `UNKNOWN`."""
        return UNKNOWN


class WatchedNamespaces:
    """All namespaces, kept current by a watch."""

    def __init__(self, client: AsyncClient, metrics: Metrics) -> None:
        self._client = client
        self._metrics = metrics
        self._facts: dict[str, NamespaceFacts] = {}
        self._asked: dict[str, asyncio.Task[NamespaceFacts]] = {}
        self._silent_until_s = float("-inf")
        self.listed = asyncio.Event()
        """Set once all namespaces are known."""

    async def facts(self, name: str) -> NamespaceFacts:
        """Return what the watch has told, or else ask; `UNKNOWN` if nobody answers in time."""
        known = self._facts.get(name)
        if known is not None:
            return known
        # Whoever reaches this port can name one; it becomes part of a path.
        if not _NAME.fullmatch(name) or time.monotonic() < self._silent_until_s:
            return UNKNOWN
        # Of many pods in one new namespace, only one asks.
        task = self._asked.get(name)
        if task is None:
            task = self._asked[name] = asyncio.create_task(self._ask(name))
            task.add_done_callback(lambda _: self._asked.pop(name, None))
        return await asyncio.shield(task)

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            try:
                async with asyncio.timeout(_RENEWED_S):
                    await self._watch(await self._list())
            except TimeoutError:
                continue
            except ClusterError as error:
                self._metrics.failed("cluster")
                log.warning("namespaces cannot be watched: %s", explain(error))
            await asyncio.sleep(_RETRY_S)

    async def _list(self) -> str:
        """Learn all namespaces; return the version from where to watch."""
        listing = self._client.list(Namespace)
        facts = {_name(one): _facts(one) async for one in listing}
        self._facts = facts
        if not self.listed.is_set():
            log.info("%d namespaces are known", len(facts))
            self.listed.set()
        return listing.resourceVersion

    async def _watch(self, version: str) -> None:
        async for event, namespace in self._client.watch(Namespace, resource_version=version):
            if event == "DELETED":
                self._facts.pop(_name(namespace), None)
            elif event in ("ADDED", "MODIFIED"):
                self._facts[_name(namespace)] = _facts(namespace)

    async def _ask(self, name: str) -> NamespaceFacts:
        try:
            async with asyncio.timeout(_QUESTION_S):
                namespace = await self._client.get(Namespace, name)
        except (TimeoutError, *ClusterError) as error:
            if status_of(error) != NOT_FOUND:
                self._silent_until_s = time.monotonic() + _SILENT_S
                self._metrics.failed("namespace")
                log.warning("nothing is known of namespace %s: %s", name, explain(error))
            return UNKNOWN
        # The watch may have told more in the meantime.
        return self._facts.setdefault(name, _facts(namespace))


def _name(namespace: Namespace) -> str:
    return _metadata(namespace).name or ""


def _facts(namespace: Namespace) -> NamespaceFacts:
    metadata = _metadata(namespace)
    return NamespaceFacts(_texts(metadata.labels), _texts(metadata.annotations))


def _metadata(namespace: Namespace) -> ObjectMeta:
    return namespace.metadata or ObjectMeta()


def _texts(texts: Mapping[str, str] | None) -> dict[str, str]:
    return dict(texts or {})
