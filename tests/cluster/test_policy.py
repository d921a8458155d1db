"""The policy in a real API server gives each pod of the table what the webhook gives it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import yaml

from procscope.kubernetes import policy
from procscope.kubernetes.settings import Settings
from tests.cluster.harness import Cluster
from tests.integration.waiting import eventually
from tests.unit.kubernetes.cases import ALL, CASES, DEFAULT, OTHER, STRICT, Case
from tests.unit.kubernetes.objects import mount_paths, pinned_paths

NAME = "procscope-table"
CLASSES = sorted({case.pod["spec"].get("runtimeClassName", "runc") for case in CASES})
WEBHOOKS = "mutatingwebhookconfigurations"


@pytest.fixture(scope="module")
def alone(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster without a webhook that would inject the same pods, and with runtime classes."""
    installed = cluster.get(WEBHOOKS)["items"]
    ours = [each for each in installed if each["metadata"]["name"] == "procscope"]
    for each in ours:
        cluster.kubectl("delete", WEBHOOKS, "procscope")
        each["metadata"].pop("resourceVersion")
        each["metadata"].pop("uid")
    kind = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "handler": "runc"}
    cluster.apply([{**kind, "metadata": {"name": name}} for name in CLASSES])
    yield cluster
    cluster.kubectl("delete", "runtimeclasses", *CLASSES)
    if ours:
        cluster.apply(ours)


@contextmanager
def policy_in_force(cluster: Cluster, settings: Settings) -> Iterator[None]:
    documents = policy.documents(settings, NAME)
    cluster.apply(documents)
    try:
        yield
    finally:
        for document in documents:
            cluster.kubectl("delete", document["kind"], NAME)


@contextmanager
def namespaces(cluster: Cluster, cases: list[Case]) -> Iterator[dict[str, str]]:
    """The namespaces of the cases, by the case's name. Those that are alike share one."""
    made: dict[str, dict[str, Any]] = {}
    shared: list[dict[str, Any]] = []
    names = {}
    for case in cases:
        facts = {"labels": dict(case.labels), "annotations": dict(case.annotations)}
        name = case.namespace
        if name == "shop":
            if facts not in shared:
                shared.append(facts)
            name = f"table-{shared.index(facts)}"
        if name != "kube-system":
            made[name] = facts
        names[case.name] = name
    kind = {"apiVersion": "v1", "kind": "Namespace"}
    cluster.apply([{**kind, "metadata": {"name": name, **made[name]}} for name in made])
    try:
        for name in made:
            # Made by a controller a moment later, and no pod is admitted without it.
            cluster.wait("serviceaccount/default", "create", "-n", name)
        yield names
    finally:
        cluster.kubectl("delete", *(f"namespace/{name}" for name in made), timeout_s=120)


def dry_run(
    cluster: Cluster, cases: list[Case], names: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """The pods as they would be stored, by the name of their case."""
    pods = {f"case-{number}": case for number, case in enumerate(cases)}
    documents = [
        {
            **case.pod,
            "metadata": {**case.pod["metadata"], "name": pod, "namespace": names[case.name]},
            "spec": {**case.pod["spec"], "automountServiceAccountToken": False},
        }
        for pod, case in pods.items()
    ]
    sent = {"apiVersion": "v1", "kind": "List", "items": documents}
    printed = cluster.kubectl(
        *("create", "--dry-run=server", "-o", "yaml", "-f", "-"), stdin=json.dumps(sent)
    )
    stored = yaml.safe_load_all(printed)
    return {pods[pod["metadata"]["name"]].name: pod for pod in stored if pod}


def given(case: Case, stored: dict[str, Any]) -> dict[str, list[str]]:
    """What was mounted into each container besides its own."""
    found = {}
    for field in ("initContainers", "containers"):
        sent = case.pod["spec"].get(field, [])
        for before, after in zip(sent, stored["spec"].get(field, []), strict=True):
            own = mount_paths(before)
            assert mount_paths(after)[: len(own)] == own
            found[after["name"]] = sorted(mount_paths(after)[len(own) :])
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("settings", [DEFAULT, ALL, STRICT, OTHER])
def test_each_container_is_given_its_files(alone: Cluster, settings: Settings) -> None:
    cases = [case for case in CASES if case.settings == settings]
    expected = {
        case.name: {name: sorted(paths) for name, paths in case.given.items()} for case in cases
    }
    some = next(case for case in cases if any(case.given.values()))
    with policy_in_force(alone, settings), namespaces(alone, cases) as names:
        # The API server learns of a policy a moment after it has accepted it.
        eventually(
            lambda: given(some, dry_run(alone, [some], names)[some.name]) == expected[some.name]
        )
        stored = dry_run(alone, cases, names)
    assert {case.name: given(case, stored[case.name]) for case in cases} == expected
    assert {case.name: pinned_paths(stored[case.name]["spec"]) for case in cases} == {
        case.name: case.pinned_paths for case in cases
    }
