"""The envelope: AdmissionReview of admission.k8s.io/v1, its request read and its response made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from procscope.kubernetes.patches import Operation, encode
from procscope.kubernetes.raw import MalformedError, table, text

API_VERSION: Final = "admission.k8s.io/v1"
KIND: Final = "AdmissionReview"


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked: `kind` is the API group and the resource, as ("apps", "deployments").

    `operation` is CREATE, UPDATE, DELETE or CONNECT; `object` is as it would be stored, and
    `old_object` as it is stored now, empty where there is none.
    """

    operation: str
    kind: tuple[str, str]
    subresource: str
    namespace: str
    object: dict[str, Any]
    old_object: dict[str, Any]


def parse(body: object) -> Request:
    """The request of a review. Raises MalformedError for what is none."""
    if not isinstance(body, Mapping):
        raise MalformedError("the review is not an object")
    request = table(body, "request")
    resource = table(request, "resource")
    return Request(
        operation=text(request, "operation"),
        kind=(text(resource, "group"), text(resource, "resource")),
        subresource=text(request, "subResource"),
        namespace=text(request, "namespace"),
        object=table(request, "object"),
        old_object=table(request, "oldObject"),
    )


def namespace_of(body: object) -> str:
    """The namespace that a review is about, empty where it has none or is not understood.

    For who has to look its facts up before `admission.review` is called.
    """
    try:
        return text(table(body, "request"), "namespace") if isinstance(body, Mapping) else ""
    except MalformedError:
        return ""


def respond(
    body: object, operations: Sequence[Operation] = (), warnings: Sequence[str] = ()
) -> dict[str, Any]:
    """The review that admits the request of `body`, with a patch and warnings if there are any."""
    response: dict[str, Any] = {"uid": _uid(body), "allowed": True}
    if operations:
        response |= {"patchType": "JSONPatch", "patch": encode(operations)}
    if warnings:
        response["warnings"] = list(warnings)
    return {"apiVersion": API_VERSION, "kind": KIND, "response": response}


def _uid(body: object) -> str:
    try:
        return text(table(body, "request"), "uid") if isinstance(body, Mapping) else ""
    except MalformedError:
        return ""
