"""A pod that could not start with the mounts is admitted without them, and the person is told."""

from __future__ import annotations

from typing import Any

import pytest

from procscope.kubernetes.admission import Outcome, review
from procscope.kubernetes.settings import UNKNOWN, NamespaceFacts, Settings
from tests.unit.kubernetes import jsonpatch
from tests.unit.kubernetes.objects import (
    DEFAULT,
    OPT_IN,
    PLAIN,
    admit_pod,
    body,
    patched,
    patched_pod,
    pod,
    status,
    warnings,
)

ALL = Settings(require_annotation=False)


def enforcing(level: str) -> NamespaceFacts:
    return NamespaceFacts(labels={"pod-security.kubernetes.io/enforce": level})


def required(*terms: list[dict[str, Any]]) -> dict[str, Any]:
    selector = {"nodeSelectorTerms": [{"matchExpressions": term} for term in terms]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": selector}}


WINDOWS_NODE = {"key": "kubernetes.io/os", "operator": "In", "values": ["windows"]}
LINUX_NODE = {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}
NAMED_NODE = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["a"]}

REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("windows", {"os": {"name": "windows"}}),
    ("windows", {"nodeSelector": {"kubernetes.io/os": "windows"}}),
    ("windows", {"nodeSelector": {"beta.kubernetes.io/os": "windows"}}),
    ("windows", {"affinity": required([NAMED_NODE, WINDOWS_NODE])}),
    ("sandbox", {"runtimeClassName": "kata"}),
    ("sandbox", {"runtimeClassName": "kata-qemu"}),
    ("sandbox", {"runtimeClassName": "gvisor"}),
    ("sandbox", {"runtimeClassName": "runsc"}),
    ("user-namespace", {"hostUsers": False}),
]
ACCEPTED: list[dict[str, Any]] = [
    {"os": {"name": "linux"}},
    {"nodeSelector": {"kubernetes.io/os": "linux"}},
    {"affinity": required([WINDOWS_NODE], [LINUX_NODE])},
    {"affinity": {"podAffinity": {}}},
    {"runtimeClassName": "runc"},
    {"runtimeClassName": "my-kata"},
    {"hostUsers": True},
    {"hostPID": True, "hostNetwork": True, "hostIPC": True},
    {"shareProcessNamespace": True},
    {"priorityClassName": "system-node-critical"},
]


@pytest.mark.parametrize(("reason", "spec"), REFUSED)
def test_what_could_not_start_is_left_alone(reason: str, spec: dict[str, Any]) -> None:
    created = pod(OPT_IN, **spec)
    verdict = admit_pod(created)
    assert (verdict.outcome, verdict.reason) == (Outcome.SKIPPED, reason)
    after = patched(created, verdict)
    assert after["spec"] == created["spec"]
    assert (status(after) or "").startswith("skipped: ")
    [shown] = warnings(verdict)
    assert shown.startswith("procscope: not injected: ")
    assert len(shown) <= 120


@pytest.mark.parametrize("spec", ACCEPTED)
def test_what_is_no_obstacle(spec: dict[str, Any]) -> None:
    verdict = admit_pod(pod(OPT_IN, **spec))
    assert (verdict.outcome, warnings(verdict)) == (Outcome.INJECTED, [])


@pytest.mark.parametrize(("reason", "spec"), REFUSED)
def test_nobody_is_warned_who_did_not_ask(reason: str, spec: dict[str, Any]) -> None:
    for created in (pod(**spec), pod({"procscope.io/inject": "false"}, **spec)):
        verdict = admit_pod(created)
        assert verdict.outcome is Outcome.NOT_ASKED, reason
        assert set(verdict.response["response"]) == {"uid", "allowed"}


@pytest.mark.parametrize("level", ["baseline", "restricted", "Baseline", ""])
def test_a_namespace_that_forbids_host_paths(level: str) -> None:
    created = pod(OPT_IN)
    verdict = admit_pod(created, namespace=enforcing(level))
    assert verdict.reason == "pod-security"
    assert patched(created, verdict)["spec"] == created["spec"]
    [shown] = warnings(verdict)
    assert f'"{level}"' in shown
    assert len(shown) <= 120


def test_a_namespace_that_allows_them() -> None:
    assert admit_pod(pod(OPT_IN), namespace=enforcing("privileged")).outcome is Outcome.INJECTED


def test_only_what_is_enforced_counts() -> None:
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("warn", "audit")}
    assert admit_pod(pod(OPT_IN), namespace=NamespaceFacts(labels)).outcome is Outcome.INJECTED


def test_the_level_of_namespaces_without_the_label() -> None:
    strict = Settings(default_pod_security_level="baseline")
    assert admit_pod(pod(OPT_IN), strict).reason == "pod-security"
    assert admit_pod(pod(OPT_IN), strict, enforcing("privileged")).outcome is Outcome.INJECTED


@pytest.mark.parametrize(
    ("exempt", "injected"),
    [(("shop",), True), (("sh*",), True), (("*",), True), (("shopping",), False), ((), False)],
)
def test_exempt_namespaces(exempt: tuple[str, ...], injected: bool) -> None:
    verdict = admit_pod(pod(OPT_IN), Settings(pod_security_exempt=exempt), enforcing("restricted"))
    assert (verdict.outcome is Outcome.INJECTED) == injected


def test_a_namespace_that_is_not_known() -> None:
    assert admit_pod(pod(OPT_IN), namespace=UNKNOWN).reason == "namespace-unknown"
    exempt = Settings(pod_security_exempt=("*",), require_annotation=False)
    assert admit_pod(pod(OPT_IN), exempt, UNKNOWN).outcome is Outcome.INJECTED
    # Its label may say no.
    assert admit_pod(pod(), exempt, UNKNOWN).reason == "namespace-unknown"


def test_user_namespaces_can_be_allowed() -> None:
    allowing = Settings(allow_user_namespaces=True)
    assert admit_pod(pod(OPT_IN, hostUsers=False), allowing).outcome is Outcome.INJECTED


def test_sandboxes_are_configured() -> None:
    settings = Settings(sandboxed_runtime_classes=("vm.*",))
    assert admit_pod(pod(OPT_IN, runtimeClassName="kata"), settings).outcome is Outcome.INJECTED
    assert admit_pod(pod(OPT_IN, runtimeClassName="vm.a"), settings).reason == "sandbox"
    assert admit_pod(pod(OPT_IN, runtimeClassName="vmxa"), settings).outcome is Outcome.INJECTED
    none = Settings(sandboxed_runtime_classes=())
    assert admit_pod(pod(OPT_IN, runtimeClassName="kata"), none).outcome is Outcome.INJECTED


def test_what_the_agent_may_wait_for_does_not_wait_for_it() -> None:
    critical = pod(priorityClassName="system-node-critical")
    assert admit_pod(critical, ALL).reason == "node-critical"
    asking = NamespaceFacts(labels={"procscope.io/inject": "true"})
    assert admit_pod(critical, namespace=asking).reason == "node-critical"


def test_a_mirror_pod_is_not_touched_at_all() -> None:
    mirror = pod({**OPT_IN, "kubernetes.io/config.mirror": "6b1d"}, os={"name": "windows"})
    verdict = admit_pod(mirror, ALL)
    assert (verdict.outcome, verdict.reason) == (Outcome.IGNORED, "mirror-pod")
    assert set(verdict.response["response"]) == {"uid", "allowed"}


def test_namespaces_that_are_left_out() -> None:
    asked = review(body(pod(OPT_IN), namespace="kube-system"), DEFAULT, PLAIN)
    assert asked.reason == "excluded-namespace"
    assert warnings(asked)
    unasked = review(body(pod(), namespace="kube-system"), ALL, PLAIN)
    assert unasked.outcome is Outcome.NOT_ASKED
    assert set(unasked.response["response"]) == {"uid", "allowed"}


def test_a_value_that_is_no_word() -> None:
    created = pod({"procscope.io/inject": "yes"})
    verdict = admit_pod(created)
    assert (verdict.outcome, verdict.reason) == (Outcome.SKIPPED, "not-a-word")
    [shown] = warnings(verdict)
    assert 'annotation procscope.io/inject is "yes"' in shown
    assert len(shown) <= 120
    assert (status(patched(created, verdict)) or "").startswith("skipped: ")


def test_a_warning_is_one_short_line_of_ascii() -> None:
    created = pod({"procscope.io/inject": "ja\n" * 400 + "é"})
    [shown] = warnings(admit_pod(created))
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) <= 256


def test_a_refused_pod_is_refused_alike_when_asked_again() -> None:
    once = patched_pod(pod(OPT_IN, hostUsers=False))
    assert jsonpatch.operations_of(admit_pod(once).response) == []
