"""Ephemeral containers get what their pod has, since a pod cannot be given volumes any more."""

from __future__ import annotations

from typing import Any

from procscope.kubernetes.admission import Outcome, Verdict, review
from tests.unit.kubernetes import jsonpatch
from tests.unit.kubernetes.objects import (
    DEFAULT,
    OPT_IN,
    PLAIN,
    body,
    container,
    mount_paths,
    patched,
    patched_pod,
    pod,
)


def debug(running: dict[str, Any], *added: dict[str, Any]) -> tuple[dict[str, Any], Verdict]:
    before = running["spec"].get("ephemeralContainers", [])
    changed = {**running, "spec": {**running["spec"], "ephemeralContainers": [*before, *added]}}
    sent = body(changed, operation="UPDATE", subresource="ephemeralcontainers", old=running)
    verdict = review(sent, DEFAULT, PLAIN)
    return patched(changed, verdict), verdict


def test_a_new_one_gets_the_files_of_its_pod() -> None:
    running = patched_pod(pod({**OPT_IN, "procscope.io/files": "meminfo,stat"}))
    after, verdict = debug(running, container("debugger"))
    assert verdict.outcome is Outcome.INJECTED
    assert mount_paths(after["spec"]["ephemeralContainers"][0]) == ["/proc/meminfo", "/proc/stat"]


def test_nothing_else_of_the_pod_is_changed() -> None:
    _, verdict = debug(patched_pod(pod(OPT_IN)), container("debugger"))
    paths = [operation["path"] for operation in jsonpatch.operations_of(verdict.response)]
    assert paths == ["/spec/ephemeralContainers/0/volumeMounts"]


def test_one_that_is_there_already_cannot_be_changed() -> None:
    running = patched_pod(pod(OPT_IN))
    running["spec"]["ephemeralContainers"] = [container("first")]
    after, _ = debug(running, container("second"))
    first, second = after["spec"]["ephemeralContainers"]
    assert first == container("first")
    assert mount_paths(second)


def test_a_pod_that_was_not_injected() -> None:
    _, verdict = debug(pod(OPT_IN), container("debugger"))
    assert verdict.outcome is Outcome.NOT_ASKED
    assert set(verdict.response["response"]) == {"uid", "allowed"}


def test_a_pod_that_was_opted_out_since() -> None:
    running = patched_pod(pod(OPT_IN))
    running["metadata"]["annotations"]["procscope.io/inject"] = "false"
    _, verdict = debug(running, container("debugger"))
    assert verdict.outcome is Outcome.NOT_ASKED


def test_its_own_mounts_are_kept() -> None:
    running = patched_pod(pod({**OPT_IN, "procscope.io/files": "meminfo,stat"}))
    mine = [{"name": "data", "mountPath": "/proc/stat"}]
    after, _ = debug(running, container("debugger", volumeMounts=mine))
    added = after["spec"]["ephemeralContainers"][0]
    assert mount_paths(added) == ["/proc/stat", "/proc/meminfo"]


def test_asked_again_it_is_left_as_it_is() -> None:
    running = patched_pod(pod(OPT_IN))
    after, _ = debug(running, container("debugger"))
    sent = body(after, operation="UPDATE", subresource="ephemeralcontainers", old=running)
    again = review(sent, DEFAULT, PLAIN)
    assert again.outcome is Outcome.UNCHANGED
    assert set(again.response["response"]) == {"uid", "allowed"}
