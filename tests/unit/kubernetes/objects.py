"""AdmissionReviews as an API server sends them, and what is in their answers."""

from __future__ import annotations

from typing import Any

from procscope.kubernetes.admission import Verdict, review
from procscope.kubernetes.settings import NamespaceFacts, Settings
from tests.unit.kubernetes import jsonpatch

DEFAULT = Settings()
PLAIN = NamespaceFacts(labels={"kubernetes.io/metadata.name": "shop"})
OPT_IN = {"procscope.io/inject": "true"}


def container(name: str = "web", **fields: object) -> dict[str, Any]:
    return {"name": name, "image": "web:1", **fields}


def pod(annotations: dict[str, str] | None = None, **spec: object) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": "web-1"}
    if annotations is not None:
        metadata["annotations"] = annotations
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [container()], **spec},
    }


def deployment(
    annotations: dict[str, str], template: dict[str, str] | None = None
) -> dict[str, Any]:
    inner = pod(template)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "annotations": annotations},
        "spec": {"template": {"metadata": inner["metadata"], "spec": inner["spec"]}},
    }


def body(
    changed: object,
    *,
    operation: str = "CREATE",
    kind: tuple[str, str] = ("", "pods"),
    subresource: str = "",
    namespace: str = "shop",
    old: object = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    group, resource = kind
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "0df28fbd-5f5f-11e8-bc74-36e6bb280816",
            "kind": {"group": group, "version": "v1", "kind": "Any"},
            "resource": {"group": group, "version": "v1", "resource": resource},
            "subResource": subresource,
            "namespace": namespace,
            "operation": operation,
            "object": changed,
            "oldObject": old,
            "dryRun": dry_run,
        },
    }


def admit_pod(
    created: dict[str, Any], settings: Settings = DEFAULT, namespace: NamespaceFacts = PLAIN
) -> Verdict:
    return review(body(created), settings, namespace)


def patched_pod(
    created: dict[str, Any], settings: Settings = DEFAULT, namespace: NamespaceFacts = PLAIN
) -> dict[str, Any]:
    return patched(created, admit_pod(created, settings, namespace))


def patched(document: dict[str, Any], verdict: Verdict) -> dict[str, Any]:
    result: dict[str, Any] = jsonpatch.apply(document, jsonpatch.operations_of(verdict.response))
    return result


def status(document: dict[str, Any]) -> str | None:
    found: str | None = (document["metadata"].get("annotations") or {}).get("procscope.io/status")
    return found


def warnings(verdict: Verdict) -> list[str]:
    found: list[str] = verdict.response["response"].get("warnings", [])
    return found


def pinned_paths(spec: dict[str, Any]) -> set[str]:
    """Where a pod mounts what comes from the pinned tree."""
    pinned = {
        volume["name"]
        for volume in spec.get("volumes") or []
        if "/self/" in (volume.get("hostPath") or {}).get("path", "")
    }
    containers = [*(spec.get("initContainers") or []), *spec["containers"]]
    mounts = [mount for one in containers for mount in one.get("volumeMounts") or []]
    return {mount["mountPath"] for mount in mounts if mount["name"] in pinned}


def mount_paths(of: dict[str, Any]) -> list[str]:
    return [mount["mountPath"] for mount in of.get("volumeMounts") or []]
