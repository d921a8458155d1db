"""Requests as a real API server sends them, and objects that are valid afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kubernetes_validate import utils  # type: ignore[import-untyped]

from procscope.inject.docker import DEFAULT_FILES
from procscope.kubernetes.admission import Outcome, review
from tests.unit.kubernetes import jsonpatch
from tests.unit.kubernetes.objects import DEFAULT, PLAIN, mount_paths, status, warnings

DATA = Path(__file__).parent / "data"
OUTCOMES = {
    "cronjob-create": (Outcome.CARRIED, ""),
    "daemonset-create": (Outcome.CARRIED, ""),
    "deployment-create": (Outcome.CARRIED, ""),
    "deployment-delete": (Outcome.IGNORED, "not-handled"),
    "deployment-update": (Outcome.CARRIED, ""),
    "job-create": (Outcome.CARRIED, ""),
    "job-update": (Outcome.IGNORED, "not-handled"),
    "pod-create": (Outcome.INJECTED, ""),
    "pod-create-dry-run": (Outcome.INJECTED, ""),
    "pod-create-mirror": (Outcome.IGNORED, "mirror-pod"),
    "pod-create-windows": (Outcome.SKIPPED, "windows"),
    "pod-delete": (Outcome.IGNORED, "not-handled"),
    "pod-ephemeral": (Outcome.INJECTED, ""),
    "pod-exec": (Outcome.IGNORED, "not-handled"),
    "pod-resize": (Outcome.IGNORED, "not-handled"),
    "pod-status": (Outcome.IGNORED, "not-handled"),
    "pod-update": (Outcome.IGNORED, "not-handled"),
    "replicaset-create": (Outcome.CARRIED, ""),
    "replicaset-create-controlled": (Outcome.IGNORED, "not-handled"),
    "statefulset-create": (Outcome.CARRIED, ""),
}
CHANGED = [
    name
    for name, (outcome, _) in OUTCOMES.items()
    if outcome in {Outcome.CARRIED, Outcome.INJECTED, Outcome.SKIPPED}
]
SCHEMAS = ("1.35", "1.36", "1.37")


def recorded(name: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text())
    return body


def admitted(name: str) -> dict[str, Any]:
    """The object of a recorded request as it is after the patch."""
    body = recorded(name)
    response = review(body, DEFAULT, PLAIN).response
    found: dict[str, Any] = jsonpatch.apply(
        body["request"]["object"], jsonpatch.operations_of(response)
    )
    return found


def test_every_recorded_request_is_tested() -> None:
    assert {path.stem for path in DATA.glob("*.json")} == set(OUTCOMES)


@pytest.mark.parametrize("name", OUTCOMES)
def test_what_becomes_of_it(name: str) -> None:
    body = recorded(name)
    verdict = review(body, DEFAULT, PLAIN)
    assert (verdict.outcome, verdict.reason) == OUTCOMES[name]
    assert verdict.response["response"]["uid"] == body["request"]["uid"]
    assert ("patch" in verdict.response["response"]) == (name in CHANGED)
    assert bool(warnings(verdict)) == (verdict.outcome is Outcome.SKIPPED)


@pytest.mark.parametrize("name", CHANGED)
def test_asked_again_there_is_nothing_to_add(name: str) -> None:
    body = recorded(name)
    body["request"]["object"] = admitted(name)
    assert "patch" not in review(body, DEFAULT, PLAIN).response["response"]


@pytest.mark.parametrize("version", SCHEMAS)
@pytest.mark.parametrize("name", CHANGED)
def test_it_is_valid_afterwards(name: str, version: str) -> None:
    utils.validate(admitted(name), version, strict=True)


def test_the_pod_with_a_sidecar() -> None:
    after = admitted("pod-create")
    spec = after["spec"]
    every = ["/" + file for file in DEFAULT_FILES]
    assert [mount_paths(each) for each in spec["initContainers"]] == [every, every]
    assert mount_paths(spec["containers"][0]) == ["/data", *every]
    assert status(after) == "injected: " + ",".join(DEFAULT_FILES)


def test_the_dry_run() -> None:
    assert admitted("pod-create-dry-run")["spec"] == admitted("pod-create")["spec"]
    assert recorded("pod-create-dry-run")["request"]["dryRun"] is True


def test_the_debug_container() -> None:
    [debugger] = admitted("pod-ephemeral")["spec"]["ephemeralContainers"]
    assert mount_paths(debugger) == ["/" + file for file in DEFAULT_FILES]


def test_the_articles_annotation() -> None:
    template = admitted("deployment-create")["spec"]["template"]
    assert template["metadata"]["annotations"] == {
        "initializer.kubernetes.io/lxcfs": "true",
        "procscope.io/carried": '{"initializer.kubernetes.io/lxcfs":"true"}',
    }


def test_the_annotation_that_took_its_place() -> None:
    template = admitted("deployment-update")["spec"]["template"]
    assert template["metadata"]["annotations"] == {
        "procscope.io/inject": "false",
        "procscope.io/carried": '{"procscope.io/inject":"false"}',
    }


def test_the_pods_of_a_cron_job() -> None:
    job = admitted("cronjob-create")["spec"]["jobTemplate"]
    annotations = job["spec"]["template"]["metadata"]["annotations"]
    assert annotations["initializer.kubernetes.io/lxcfs"] == "true"
    assert "annotations" not in (job.get("metadata") or {})
