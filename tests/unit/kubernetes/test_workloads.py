"""An annotation on a workload reaches its pods, follows its changes, and goes when it goes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from procscope.kubernetes.admission import Outcome, Verdict, review
from procscope.kubernetes.settings import NamespaceFacts, Settings
from tests.unit.kubernetes.objects import (
    DEFAULT,
    OPT_IN,
    PLAIN,
    body,
    deployment,
    patched,
    pod,
    warnings,
)

LXCFS = "initializer.kubernetes.io/lxcfs"
INJECT = "procscope.io/inject"
FILES = "procscope.io/files"
PINNED = "procscope.io/pinned"
CARRIED = "procscope.io/carried"
DEPLOYMENTS = ("apps", "deployments")
KINDS = [
    DEPLOYMENTS,
    ("apps", "statefulsets"),
    ("apps", "daemonsets"),
    ("apps", "replicasets"),
    ("batch", "jobs"),
]
FORBIDDING = NamespaceFacts(labels={"pod-security.kubernetes.io/enforce": "baseline"})


def admit(
    workload: dict[str, Any],
    kind: tuple[str, str] = DEPLOYMENTS,
    operation: str = "CREATE",
    namespace: NamespaceFacts = PLAIN,
    settings: Settings = DEFAULT,
) -> Verdict:
    return review(body(workload, kind=kind, operation=operation), settings, namespace)


def carried(workload: dict[str, Any], operation: str = "CREATE") -> dict[str, str]:
    """The annotations of the template afterwards, without the note."""
    after = patched(workload, admit(workload, operation=operation))
    found: dict[str, str] = dict(after["spec"]["template"]["metadata"].get("annotations", {}))
    found.pop(CARRIED, None)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_workload_is_carried_from(kind: tuple[str, str]) -> None:
    workload = deployment({LXCFS: "true", FILES: "meminfo", "team": "a"})
    verdict = admit(workload, kind)
    assert verdict.outcome is Outcome.CARRIED
    template = patched(workload, verdict)["spec"]["template"]
    assert template["metadata"]["annotations"] == {
        LXCFS: "true",
        FILES: "meminfo",
        CARRIED: json.dumps({LXCFS: "true", FILES: "meminfo"}, separators=(",", ":")),
    }
    assert template["spec"] == workload["spec"]["template"]["spec"]


def test_a_cron_job_has_two_places() -> None:
    inner = deployment({}, {"mine": "1"})["spec"]["template"]
    job = {"metadata": {"annotations": {FILES: "stat"}}, "spec": {"template": inner}}
    workload = {
        "metadata": {"annotations": {INJECT: "true", FILES: "meminfo"}},
        "spec": {"schedule": "* * * * *", "jobTemplate": job},
    }
    after = patched(workload, admit(workload, ("batch", "cronjobs")))
    annotations = after["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["annotations"]
    assert (annotations[INJECT], annotations[FILES]) == ("true", "stat")
    assert annotations["mine"] == "1"


@pytest.mark.parametrize("metadata", [{}, {"annotations": None}, {"labels": {}}, None])
def test_a_template_without_annotations(metadata: dict[str, Any] | None) -> None:
    workload = deployment(OPT_IN)
    workload["spec"]["template"]["metadata"] = metadata
    after = patched(workload, admit(workload))
    assert after["spec"]["template"]["metadata"]["annotations"][INJECT] == "true"


@pytest.mark.parametrize("own", [{INJECT: "false"}, {LXCFS: "false"}, {INJECT: "true"}])
def test_the_templates_own_annotation_wins(own: dict[str, str]) -> None:
    assert carried(deployment({INJECT: "true", LXCFS: "true"}, own)) == own


def test_files_and_opting_in_are_carried_apart() -> None:
    assert carried(deployment({FILES: "stat"}, OPT_IN)) == {**OPT_IN, FILES: "stat"}
    assert carried(deployment(OPT_IN, {FILES: "stat"})) == {**OPT_IN, FILES: "stat"}


def test_what_is_pinned_is_carried_apart_too() -> None:
    assert carried(deployment({PINNED: "all"}, {**OPT_IN, FILES: "stat"})) == {
        **OPT_IN,
        FILES: "stat",
        PINNED: "all",
    }
    assert carried(deployment({**OPT_IN, PINNED: "all"}, {PINNED: "none"})) == {
        **OPT_IN,
        PINNED: "none",
    }


def test_nothing_to_carry() -> None:
    verdict = admit(deployment({"team": "a"}, {"mine": "1"}))
    assert verdict.outcome is Outcome.UNCHANGED
    assert set(verdict.response["response"]) == {"uid", "allowed"}


def test_a_changed_annotation_is_carried_again() -> None:
    workload = patched(deployment(OPT_IN), admit(deployment(OPT_IN)))
    workload["metadata"]["annotations"] = {INJECT: "false", FILES: "stat"}
    assert carried(workload, "UPDATE") == {INJECT: "false", FILES: "stat"}


def test_an_annotation_taken_away_is_taken_away() -> None:
    created = deployment({**OPT_IN, FILES: "stat"}, {"mine": "1"})
    workload = patched(created, admit(created))
    workload["metadata"]["annotations"] = {}
    after = patched(workload, admit(workload, operation="UPDATE"))
    assert after["spec"]["template"]["metadata"]["annotations"] == {"mine": "1"}


def test_what_was_changed_on_the_template_since_is_its_own() -> None:
    workload = patched(deployment(OPT_IN), admit(deployment(OPT_IN)))
    workload["spec"]["template"]["metadata"]["annotations"][INJECT] = "false"
    assert carried(workload, "UPDATE") == {INJECT: "false"}
    workload["metadata"]["annotations"] = {}
    assert carried(workload, "UPDATE") == {INJECT: "false"}


def test_another_name_can_replace_a_carried_one() -> None:
    workload = patched(deployment({LXCFS: "true"}), admit(deployment({LXCFS: "true"})))
    workload["metadata"]["annotations"] = {INJECT: "false"}
    assert carried(workload, "UPDATE") == {INJECT: "false"}


@pytest.mark.parametrize("note", ["", "[]", "{", "1", '{"mine":"1"}', "[" * 100_000])
def test_a_note_that_is_not_ours_takes_nothing_away(note: str) -> None:
    assert carried(deployment({}, {"mine": "1", CARRIED: note}), "UPDATE") == {"mine": "1"}
    assert carried(deployment(OPT_IN, {"mine": "1", CARRIED: note})) == {"mine": "1", **OPT_IN}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_controller_made_is_left_alone(kind: tuple[str, str]) -> None:
    workload = deployment(OPT_IN)
    workload["metadata"]["ownerReferences"] = [{"kind": "X", "name": "a", "controller": True}]
    verdict = admit(workload, kind)
    assert verdict.outcome is Outcome.IGNORED
    assert set(verdict.response["response"]) == {"uid", "allowed"}


def test_an_owner_that_is_no_controller() -> None:
    workload = deployment(OPT_IN)
    workload["metadata"]["ownerReferences"] = [{"kind": "X", "name": "a"}]
    assert admit(workload).outcome is Outcome.CARRIED


def test_a_job_is_changed_at_its_creation_only() -> None:
    assert admit(deployment(OPT_IN), ("batch", "jobs"), "UPDATE").outcome is Outcome.IGNORED
    assert admit(deployment(OPT_IN), operation="UPDATE").outcome is Outcome.CARRIED


def test_a_workload_that_is_being_deleted() -> None:
    workload = deployment(OPT_IN)
    workload["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert admit(workload, operation="UPDATE").outcome is Outcome.IGNORED


@pytest.mark.parametrize("operation", ["DELETE", "CONNECT"])
def test_other_operations(operation: str) -> None:
    assert admit(deployment(OPT_IN), operation=operation).outcome is Outcome.IGNORED


def test_other_kinds() -> None:
    assert admit(deployment(OPT_IN), ("example.com", "deployments")).outcome is Outcome.IGNORED


def test_the_person_at_kubectl_is_told_why_the_pods_will_not_be_injected() -> None:
    verdict = admit(deployment(OPT_IN), namespace=FORBIDDING)
    [shown] = warnings(verdict)
    assert shown.startswith("procscope: pods will not be injected: namespace ")
    assert len(shown) <= 120


def test_and_which_files_there_are_not() -> None:
    assert warnings(admit(deployment({**OPT_IN, FILES: "vmstat,stat"}))) == [
        'procscope: no such file: "vmstat"'
    ]


def test_and_that_a_value_is_no_word() -> None:
    [shown] = warnings(admit(deployment({INJECT: "yes"})))
    assert '"yes"' in shown


def test_who_did_not_ask_is_not_warned() -> None:
    everywhere = Settings(require_annotation=False)
    for outer in ({}, {INJECT: "false"}, {FILES: "vmstat"}):
        workload = deployment(outer)
        assert warnings(admit(workload, namespace=FORBIDDING, settings=everywhere)) == []


def test_the_pods_of_a_carried_template_are_injected() -> None:
    workload = deployment({LXCFS: "true"})
    template = patched(workload, admit(workload))["spec"]["template"]
    created = pod(template["metadata"]["annotations"])
    assert review(body(created), DEFAULT, PLAIN).outcome is Outcome.INJECTED
