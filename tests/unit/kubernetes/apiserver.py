"""As much of an API server as the webhook's shell asks for, in memory, below its HTTP client.

It keeps objects with a resourceVersion, and refuses to replace what somebody else has changed. The
real one is asked by the tests of the `cluster` level; here are the orders of events that it cannot
be brought to show.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from functools import cached_property
from typing import Any

import httpx2
from lightkube import AsyncClient, KubeConfig
from lightkube.config.models import Cluster, User

Object = dict[str, Any]

NAMESPACES = "/api/v1/namespaces"
SECRET = "/api/v1/namespaces/procscope/secrets/tls"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/procscope/leases/webhook"
CONFIGURATION = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/procscope"


class _Stream(httpx2.AsyncByteStream):
    """A watch: a line for each event, until it is cut."""

    def __init__(self, events: asyncio.Queue[Object | None]) -> None:
        self._events = events

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (event := await self._events.get()) is not None:
            yield json.dumps(event).encode() + b"\n"


class ApiServer(httpx2.AsyncBaseTransport):
    """Objects by the path of their request."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.requests: list[tuple[str, str]] = []
        self.watches: list[asyncio.Queue[Object | None]] = []
        self.refuse: Callable[[str, str], int] = lambda method, path: 0
        """The status to refuse a request with; 0: answer it; -1: break the connection."""
        self._version = 0

    @cached_property
    def client(self) -> AsyncClient:
        """A client of this server."""
        config = KubeConfig.from_one(
            cluster=Cluster(server="http://api"), user=User(token="t"), namespace="procscope"
        )
        return AsyncClient(config, transport=self, field_manager="test")

    def put(self, path: str, content: Object) -> Object:
        """Store an object, under a new version."""
        self._version += 1
        content.setdefault("metadata", {})["resourceVersion"] = str(self._version)
        content["metadata"].setdefault("name", path.rpartition("/")[2])
        self.objects[path] = content
        return content

    def tell(self, kind: str, name: str, **metadata: Any) -> None:  # noqa: ANN401
        """Send an event to every watch."""
        self._version += 1
        content = {"metadata": {"name": name, "resourceVersion": str(self._version), **metadata}}
        for watch in self.watches:
            watch.put_nowait({"type": kind, "object": content})

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        method, path = request.method, request.url.path
        self.requests.append((method, path))
        refused = self.refuse(method, path)
        if refused < 0:
            raise httpx2.ConnectError("connection refused")
        if refused:
            return _status(refused, "refused")
        if path == NAMESPACES:
            return self._namespaces(request)
        body = json.loads(await request.aread() or b"{}")
        match method:
            case "GET":
                return self._found(path)
            case "PUT":
                return self._replace(path, body)
            case "PATCH":
                return self._patch(path, body, request.headers["content-type"])
        return _status(405, method)

    def _namespaces(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.params.get("watch") == "true":
            events: asyncio.Queue[Object | None] = asyncio.Queue()
            self.watches.append(events)
            return httpx2.Response(200, stream=_Stream(events))
        items = [one for path, one in self.objects.items() if path.startswith(NAMESPACES + "/")]
        items = [one for one in items if one.get("kind") == "Namespace"]
        return _json({"metadata": {"resourceVersion": str(self._version)}, "items": items})

    def _found(self, path: str) -> httpx2.Response:
        return _json(self.objects[path]) if path in self.objects else _status(404, "not found")

    def _replace(self, path: str, body: Object) -> httpx2.Response:
        stored = self.objects.get(path)
        if stored is None:
            return _status(404, "not found")
        if body["metadata"]["resourceVersion"] != stored["metadata"]["resourceVersion"]:
            return _status(409, "the object has been modified")
        return _json(self.put(path, body))

    def _patch(self, path: str, body: Object, patch_type: str) -> httpx2.Response:
        stored = self.objects.get(path)
        if patch_type == "application/apply-patch+yaml":
            return _json(self.put(path, (stored or {}) | body))
        if stored is None:
            return _status(404, "not found")
        if body["metadata"]["resourceVersion"] != stored["metadata"]["resourceVersion"]:
            return _status(409, "the object has been modified")
        patched = {one["name"]: one["clientConfig"] for one in body["webhooks"]}
        for webhook in stored["webhooks"]:
            webhook["clientConfig"] |= patched[webhook["name"]]
        return _json(self.put(path, stored))


def _json(content: Object) -> httpx2.Response:
    # A copy: what is stored changes.
    return httpx2.Response(200, json=json.loads(json.dumps(content)))


def _status(code: int, message: str) -> httpx2.Response:
    return httpx2.Response(code, json={"kind": "Status", "code": code, "message": message})


def namespace(name: str, **labels: str) -> Object:
    """A Namespace as the API server stores it."""
    return {"kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def configuration(*names: str) -> Object:
    """A MutatingWebhookConfiguration whose webhooks nobody trusts yet."""
    return {
        "webhooks": [
            {
                "name": name,
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "clientConfig": {"service": {"name": "webhook", "namespace": "procscope"}},
            }
            for name in names
        ]
    }
