"""Proves: every request gets an answer an API server understands, and none is an error of ours.

The application is called as an ASGI server calls it, without a socket.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.kubernetes import admission, webhook
from procscope.kubernetes.metrics import Metrics
from procscope.kubernetes.namespaces import NoNamespaces
from procscope.kubernetes.readiness import Readiness
from procscope.kubernetes.settings import NamespaceFacts, Settings
from procscope.kubernetes.webhook import MAX_BODY_BYTES, Probes, Webhook
from tests.unit.kubernetes.objects import OPT_IN, body, pod

JSON = "application/json"


class Known:
    """Namespaces that enforce nothing."""

    async def facts(self, name: str) -> NamespaceFacts:
        return NamespaceFacts(labels={"kubernetes.io/metadata.name": name})


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401
        return json.loads(self.body)


class Server:
    """The application, and what is around it."""

    def __init__(self, *, tls: bool = True) -> None:
        self.metrics = Metrics()
        self.readiness = Readiness()
        self.application = (
            Webhook(Settings(), Known(), self.readiness, self.metrics)
            if tls
            else Probes(self.readiness, self.metrics)
        )

    def request(
        self,
        method: str,
        path: str,
        parts: Iterable[bytes] = (),
        content_type: str = JSON,
        *,
        complete: bool = True,
    ) -> Answer:
        incoming = [
            {"type": "http.request", "body": part, "more_body": True} for part in (*parts, b"")
        ]
        if complete:
            incoming[-1]["more_body"] = False
        else:
            incoming.append({"type": "http.disconnect"})
        outgoing: list[Any] = []

        async def receive() -> Any:  # noqa: ANN401
            return incoming.pop(0)

        async def send(message: Any) -> None:  # noqa: ANN401
            outgoing.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [(b"content-type", content_type.encode())] if content_type else [],
        }
        asyncio.run(self.application(scope, receive, send))
        start, end = outgoing
        headers = {name.decode(): value.decode() for name, value in start["headers"]}
        assert int(headers["content-length"]) == len(end["body"])
        return Answer(start["status"], headers, end["body"])

    def mutate(self, content: object) -> Answer:
        return self.request("POST", "/mutate", [json.dumps(content).encode()])

    def counted(self) -> str:
        return self.metrics.render(ready=True).decode()


def test_a_pod_that_asks_for_it_is_given_its_files() -> None:
    server, review = Server(), body(pod(OPT_IN))
    answer = server.mutate(review)
    assert answer.status == 200
    assert answer.headers["content-type"] == JSON
    response = answer.json["response"]
    assert response["uid"] == review["request"]["uid"]
    assert response["allowed"] is True
    assert json.loads(base64.b64decode(response["patch"]))


def test_what_became_of_it_is_counted() -> None:
    server = Server()
    review = body(pod(OPT_IN))
    review["request"]["kind"]["kind"] = "Pod"
    server.mutate(review)
    server.mutate(review)
    assert (
        'procscope_webhook_admissions_total{kind="Pod",outcome="injected",reason=""} 2.0'
        in server.counted()
    )
    assert "procscope_webhook_admission_duration_seconds_count 2.0" in server.counted()


def test_kinds_that_somebody_makes_up_share_one_series() -> None:
    server = Server()
    for name in ("A", "B"):
        review = body(pod())
        review["request"]["kind"]["kind"] = name
        server.mutate(review)
    assert 'admissions_total{kind="other",outcome="not-asked",reason=""} 2.0' in server.counted()


def test_the_parts_of_a_body_are_put_together() -> None:
    content = json.dumps(body(pod(OPT_IN))).encode()
    parts = [content[start : start + 7] for start in range(0, len(content), 7)]
    answer = Server().request("POST", "/mutate", parts, "application/json; charset=utf-8")
    assert "patch" in answer.json["response"]


def test_a_failure_of_the_review_admits_the_object_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(admission, "review", fail)
    server, review = Server(), body(pod(OPT_IN))
    with caplog.at_level(logging.ERROR):
        answer = server.mutate(review)
    assert answer.status == 200
    assert answer.json["response"] == {"uid": review["request"]["uid"], "allowed": True}
    assert 'errors_total{what="review"} 1.0' in server.counted()
    assert "ZeroDivisionError" in caplog.text


def test_a_failure_of_the_look_up_admits_the_object_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(Known, "facts", fail)
    assert Server().mutate(body(pod(OPT_IN))).json["response"]["allowed"] is True


NOT_REVIEWS = {
    "nothing": b"",
    "no JSON": b"{",
    "no text": b"\xff\xfe",
    "too deep": b"[" * 100_000,
    "a number too long": b"1" * 10_000,
    "a list": b"[]",
    "another kind": json.dumps(body(pod()) | {"kind": "Pod"}).encode(),
    "another version": json.dumps(
        body(pod()) | {"apiVersion": "admission.k8s.io/v1beta1"}
    ).encode(),
    "no request": json.dumps(body(pod()) | {"request": None}).encode(),
    "no uid": json.dumps(body(pod()) | {"request": {}}).encode(),
}


@pytest.mark.parametrize("content", NOT_REVIEWS.values(), ids=NOT_REVIEWS)
def test_what_is_no_review_is_refused_in_one_line(content: bytes) -> None:
    server = Server()
    answer = server.request("POST", "/mutate", [content])
    assert answer.status == 400
    assert answer.body.count(b"\n") == 1
    assert answer.body.endswith(b"\n")
    # Bytes that were not understood may be followed by others.
    assert answer.headers["connection"] == "close"
    assert 'errors_total{what="request"} 1.0' in server.counted()


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/yaml", "json"])
def test_another_content_type_is_refused(content_type: str) -> None:
    content = json.dumps(body(pod(OPT_IN))).encode()
    answer = Server().request("POST", "/mutate", [content], content_type)
    assert answer.status == 400
    assert b"application/json" in answer.body


def test_a_body_beyond_the_limit_is_refused_before_it_ends() -> None:
    part = b" " * (1024 * 1024)
    parts = [part] * (MAX_BODY_BYTES // len(part) + 2)
    answer = Server().request("POST", "/mutate", parts, complete=False)
    assert answer.status == 413


def test_a_body_up_to_the_limit_is_taken() -> None:
    content = json.dumps(body(pod(OPT_IN))).encode()
    answer = Server().request("POST", "/mutate", [content.ljust(MAX_BODY_BYTES)])
    assert "patch" in answer.json["response"]


def test_a_body_that_was_cut_short_is_no_review() -> None:
    content = json.dumps(body(pod(OPT_IN))).encode()
    assert Server().request("POST", "/mutate", [content], complete=False).status == 400


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "_RECEIVING_S", 0.01)
    outgoing: list[Any] = []

    async def receive() -> Any:  # noqa: ANN401
        await asyncio.Event().wait()

    async def send(message: Any) -> None:  # noqa: ANN401
        outgoing.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/mutate",
        "headers": [(b"content-type", b"application/json")],
    }
    asyncio.run(Server().application(scope, receive, send))
    assert outgoing[0]["status"] == 408


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
FIELDS = ("uid", "kind", "resource", "namespace", "operation", "object", "name", "subResource")


@given(st.dictionaries(st.sampled_from(FIELDS), VALUES), st.binary(max_size=50))
def test_garbage_is_admitted_or_refused_but_never_an_error_of_ours(
    request: dict[str, Any], garbage: bytes
) -> None:
    server = Server()
    changed = body(pod(OPT_IN))
    changed["request"] |= request
    assert server.mutate(changed).status in (200, 400)
    assert server.request("POST", "/mutate", [garbage]).status == 400
    assert 'errors_total{what="review"} 0.0' in server.counted()


@pytest.mark.parametrize("tls", [True, False])
def test_health_readiness_and_metrics_are_there(tls: bool) -> None:
    server = Server(tls=tls)
    assert server.request("GET", "/healthz").status == 200
    assert server.request("GET", "/readyz").status == 200
    answer = server.request("GET", "/metrics")
    assert b"procscope_webhook_ready 1.0" in answer.body
    assert answer.headers["content-type"].startswith("text/plain")


def test_what_is_missing_is_named() -> None:
    server = Server()
    present: list[bool] = []
    server.readiness.require("no certificate yet", lambda: bool(present))
    answer = server.request("GET", "/readyz")
    assert (answer.status, answer.body) == (503, b"not ready: no certificate yet\n")
    assert server.request("GET", "/healthz").status == 200
    present.append(True)
    assert server.request("GET", "/readyz").status == 200


def test_on_the_way_out_it_is_not_ready_and_goes_on_answering() -> None:
    server = Server()
    assert "connection" not in server.mutate(body(pod(OPT_IN))).headers
    server.readiness.drain()
    assert server.request("GET", "/readyz").status == 503
    assert server.request("GET", "/healthz").status == 200
    answer = server.mutate(body(pod(OPT_IN)))
    assert "patch" in answer.json["response"]
    # The next request comes over a new connection, to somebody who stays.
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("POST", "/mutate/", 404),
        ("GET", "/mutate", 405),
        ("POST", "/healthz", 405),
        ("PUT", "/mutate", 405),
    ],
)
def test_what_is_not_offered_is_refused(method: str, path: str, status: int) -> None:
    assert Server().request(method, path).status == status


def test_no_admission_without_tls() -> None:
    content = json.dumps(body(pod(OPT_IN))).encode()
    assert Server(tls=False).request("POST", "/mutate", [content]).status == 404


def test_without_a_cluster_the_person_is_told_why_nothing_was_done() -> None:
    server = Server()
    server.application = Webhook(Settings(), NoNamespaces(), server.readiness, server.metrics)
    response = server.mutate(body(pod(OPT_IN))).json["response"]
    assert response["allowed"] is True
    assert response["warnings"]
