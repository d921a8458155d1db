"""The webhook as an ASGI application: bytes of an AdmissionReview in, bytes of one out.

`/mutate` never answers with an error because of something in here: what cannot be reviewed is
admitted as it is, and counted. An API server that is told 4xx or 5xx, for what is no review at all,
does what `failurePolicy` says.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from procscope.kubernetes import admission, reviews
from procscope.kubernetes.metrics import CONTENT_TYPE, Metrics
from procscope.kubernetes.namespaces import Namespaces
from procscope.kubernetes.readiness import Readiness
from procscope.kubernetes.settings import Settings

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

MUTATE: Final = "/mutate"
MAX_BODY_BYTES: Final = 2 * 3 * 1024 * 1024 + 64 * 1024
"""An API server takes objects of 3 MiB (`MaxRequestBodyBytes`); a review may hold two of them."""
_RECEIVING_S: Final = 10.0
"""The longest that an API server may be told to wait is 30 s; a body is there at once."""
_JSON: Final = "application/json"
_TEXT: Final = "text/plain; charset=utf-8"

log = logging.getLogger(__name__)


class _RefusedError(Exception):
    """A request that is answered with a status and a line of text."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status = status


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    content_type: str
    body: bytes


class Probes:
    """Answers `/healthz`, `/readyz` and `/metrics`, on the port without TLS."""

    def __init__(self, readiness: Readiness, metrics: Metrics) -> None:
        self._readiness = readiness
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        try:
            response = await self._respond(scope, receive)
        except _RefusedError as error:
            self._metrics.failed("request")
            response = _line(error.status, str(error))
        await self._send(response, send)

    async def _respond(self, scope: Scope, receive: Receive) -> _Response:
        path = scope["path"]
        if path not in ("/healthz", "/readyz", "/metrics"):
            raise _RefusedError(404, f"there is nothing at {path!r}")
        if scope["method"] not in ("GET", "HEAD"):
            raise _RefusedError(405, f"{path} is to be read by GET")
        reasons = self._readiness.reasons_against()
        if path == "/metrics":
            return _Response(200, CONTENT_TYPE, self._metrics.render(ready=not reasons))
        if path == "/readyz" and reasons:
            return _line(503, "not ready: " + "; ".join(reasons))
        return _line(200, "ok")

    async def _send(self, response: _Response, send: Send) -> None:
        headers = [
            (b"content-type", response.content_type.encode()),
            (b"content-length", b"%d" % len(response.body)),
        ]
        # What was not read of a request cannot be told from the next one. And a client that comes
        # over a new connection comes to a replica that stays.
        if response.status >= 400 or self._readiness.draining:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})


class Webhook(Probes):
    """Answers `/mutate` as well."""

    def __init__(
        self, settings: Settings, namespaces: Namespaces, readiness: Readiness, metrics: Metrics
    ) -> None:
        super().__init__(readiness, metrics)
        self._settings = settings
        self._namespaces = namespaces

    async def _respond(self, scope: Scope, receive: Receive) -> _Response:
        if scope["path"] != MUTATE:
            return await super()._respond(scope, receive)
        if scope["method"] != "POST":
            raise _RefusedError(405, f"{MUTATE} takes an AdmissionReview by POST")
        _check_content_type(scope)
        body = await _receive_body(receive)
        started_s = time.perf_counter()
        review = _parse(body)
        response, outcome, reason = await self._review(review)
        encoded = json.dumps(response, separators=(",", ":")).encode()
        duration_s = time.perf_counter() - started_s
        self._metrics.admitted(_kind(review), outcome, reason, duration_s)
        return _Response(200, _JSON, encoded)

    async def _review(self, review: dict[str, Any]) -> tuple[dict[str, Any], str, str]:
        """Return the answer, and by which labels to count it."""
        try:
            namespace = await self._namespaces.facts(reviews.namespace_of(review))
            verdict = admission.review(review, self._settings, namespace)
        except Exception:
            # Whatever it is, it must not keep a pod from starting.
            self._metrics.failed("review")
            log.exception("admitted unchanged, since its review failed: %s", _subject(review))
            return reviews.respond(review), "failed", ""
        if verdict.message:
            log.debug("%s: %s: %s", _subject(review), verdict.outcome, verdict.message)
        return verdict.response, str(verdict.outcome), verdict.reason


def _check_content_type(scope: Scope) -> None:
    given = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    if given.partition(b";")[0].strip().lower() != _JSON.encode():
        raise _RefusedError(400, f"the content type has to be {_JSON}")


async def _receive_body(receive: Receive) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(_RECEIVING_S):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise _RefusedError(400, "the request was cut short")
                body += message.get("body", b"")
                if len(body) > MAX_BODY_BYTES:
                    raise _RefusedError(413, f"more than {MAX_BODY_BYTES} bytes")
                if not message.get("more_body"):
                    return bytes(body)
    except TimeoutError:
        raise _RefusedError(408, "the request was not sent in time") from None


def _parse(body: bytes) -> dict[str, Any]:
    """Return the review. Raises _RefusedError for what is none."""
    try:
        review = json.loads(body)
    except (ValueError, RecursionError):
        raise _RefusedError(400, "the body is not JSON") from None
    if not isinstance(review, dict) or not _is_review(review):
        raise _RefusedError(400, f"the body is no {reviews.KIND} of {reviews.API_VERSION}")
    return review


def _is_review(review: dict[str, Any]) -> bool:
    request = review.get("request")
    return (
        review.get("kind") == reviews.KIND
        and review.get("apiVersion") == reviews.API_VERSION
        and isinstance(request, dict)
        and isinstance(request.get("uid"), str)
    )


def _kind(review: dict[str, Any]) -> str:
    kind = review["request"].get("kind")
    return str(kind.get("kind")) if isinstance(kind, dict) else ""


def _subject(review: dict[str, Any]) -> str:
    """Name the object of a review for the log."""
    request = review["request"]
    return f"{_kind(review)} {request.get('namespace')}/{request.get('name')}"


def _line(status: int, text: str) -> _Response:
    return _Response(status, _TEXT, text.encode(errors="replace") + b"\n")
