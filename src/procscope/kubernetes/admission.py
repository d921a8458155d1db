"""From an AdmissionReview to its answer. Pure: no file, no clock, no network.

Every request is admitted. What is not understood is admitted unchanged, and the answer is the same
for a dry run, since nothing is done besides it.

| request | answer |
|---|---|
| CREATE of a pod | volumes and mounts, and a status annotation |
| UPDATE of `pods/ephemeralcontainers` | mounts for the new ones, of volumes the pod has |
| CREATE or UPDATE of a workload | its annotations are carried to the template of its pods |
| everything else | nothing |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from procscope.kubernetes import reviews, workloads
from procscope.kubernetes.decision import Choice, Decision, choose, decide
from procscope.kubernetes.injection import inject, inject_ephemeral, was_injected
from procscope.kubernetes.patches import Operation, set_keys
from procscope.kubernetes.raw import MalformedError, table, texts
from procscope.kubernetes.refusals import MIRROR_ANNOTATION, Pod, Refusal, refusal
from procscope.kubernetes.reviews import Request
from procscope.kubernetes.settings import STATUS, NamespaceFacts, Settings
from procscope.kubernetes.words import quoted, warning


class Outcome(StrEnum):
    """What became of a request; few enough to be a label of a metric."""

    INJECTED = "injected"
    """The pod, or a new ephemeral container, is given files."""
    CARRIED = "carried"
    """Annotations of a workload were brought to, or taken from, its template."""
    UNCHANGED = "unchanged"
    """All is as it should be: nothing is left to add, or there is nothing to carry."""
    NOT_ASKED = "not-asked"
    """Nobody has opted in, or somebody has opted out."""
    SKIPPED = "skipped"
    """Asked for, but it cannot be; the answer has a warning."""
    IGNORED = "ignored"
    """Not a request that anything is done for, or not one that is understood."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The AdmissionReview to send back, and what it means.

    `reason` is one of a few words, for metrics; empty where `outcome` says all. `message` is a
    sentence for the log, empty likewise.
    """

    response: dict[str, Any]
    outcome: Outcome
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class _Result:
    outcome: Outcome
    reason: str = ""
    message: str = ""
    operations: tuple[Operation, ...] = ()
    warnings: tuple[str, ...] = ()


def review(body: object, settings: Settings, namespace: NamespaceFacts) -> Verdict:
    """Answer `body`, an AdmissionReview as it came from json.loads(). Never raises for any JSON.

    `namespace` is that of the request (`reviews.namespace_of`), or `settings.UNKNOWN`.
    """
    try:
        result = _judge(reviews.parse(body), settings, namespace)
    except MalformedError as error:
        result = _Result(Outcome.IGNORED, "malformed", str(error))
    return Verdict(
        response=reviews.respond(body, result.operations, result.warnings),
        outcome=result.outcome,
        reason=result.reason,
        message=result.message,
    )


def _judge(request: Request, settings: Settings, namespace: NamespaceFacts) -> _Result:
    if not request.object:
        return _Result(Outcome.IGNORED, "not-handled")
    match request.kind, request.subresource, request.operation:
        case ("", "pods"), "", "CREATE":
            return _new_pod(request, settings, namespace)
        case ("", "pods"), "ephemeralcontainers", "UPDATE":
            return _ephemeral(request, settings, namespace)
        case kind, "", operation if kind in workloads.TEMPLATES:
            if workloads.changeable(kind, operation, request.object):
                return _workload(request, settings, namespace)
    return _Result(Outcome.IGNORED, "not-handled")


def _new_pod(request: Request, settings: Settings, namespace: NamespaceFacts) -> _Result:
    metadata = table(request.object, "metadata")
    annotations = texts(metadata, "annotations")
    if MIRROR_ANNOTATION in annotations:
        return _Result(Outcome.IGNORED, "mirror-pod")
    decision = decide(annotations, namespace, settings)
    if request.namespace in settings.excluded_namespaces and not decision.explicit:
        return _Result(Outcome.NOT_ASKED)
    pod = Pod(table(request.object, "spec"), request.namespace)
    choice = choose(annotations, namespace, settings)
    refused = _refused(pod, decision, choice, namespace, settings)
    if refused is not None:
        return _Result(
            Outcome.SKIPPED,
            refused.reason,
            refused.message,
            operations=tuple(_status(request.object, f"skipped: {refused.message}")),
            warnings=(warning(f"not injected: {refused.message}"),),
        )
    if not decision.wanted:
        return _Result(Outcome.NOT_ASKED)
    injection = inject(pod.spec, choice.files, settings.mountpoint, choice.pinned)
    operations = [*injection.operations, *_status(request.object, injection.status)]
    return _Result(
        Outcome.INJECTED if injection.operations else Outcome.UNCHANGED,
        operations=tuple(operations),
        warnings=_about_choice(choice),
    )


def _refused(
    pod: Pod,
    decision: Decision,
    choice: Choice,
    namespace: NamespaceFacts,
    settings: Settings,
) -> Refusal | None:
    """Why what is asked for, or what was meant to ask for it, cannot be done."""
    if decision.problem:
        return Refusal("not-a-word", decision.problem)
    if not decision.wanted:
        return None
    found = refusal(pod, decision, namespace, settings)
    if found is None and not choice.files:
        return Refusal("no-files", f"no such files: {quoted(','.join(choice.unknown))}")
    return found


def _about_choice(choice: Choice) -> tuple[str, ...]:
    problems = [f"no such file: {quoted(name)}" for name in choice.unknown]
    if choice.problem:
        problems.append(choice.problem)
    return tuple(warning(problem) for problem in problems)


def _status(pod: Mapping[str, Any], status: str) -> list[Operation]:
    metadata = pod.get("metadata")
    if metadata is None:
        return set_keys(pod, {"metadata": {"annotations": {STATUS: status}}})
    return set_keys(metadata.get("annotations"), {STATUS: status}, "metadata", "annotations")


def _ephemeral(request: Request, settings: Settings, namespace: NamespaceFacts) -> _Result:
    annotations = texts(table(request.object, "metadata"), "annotations")
    decision = decide(annotations, namespace, settings)
    opted_out = decision.explicit and not decision.wanted
    if opted_out or not was_injected(annotations):
        return _Result(Outcome.NOT_ASKED)
    injection = inject_ephemeral(
        table(request.object, "spec"), table(request.old_object, "spec"), settings.mountpoint
    )
    return _Result(
        Outcome.INJECTED if injection.operations else Outcome.UNCHANGED,
        operations=tuple(injection.operations),
    )


def _workload(request: Request, settings: Settings, namespace: NamespaceFacts) -> _Result:
    carried = workloads.carry(request.kind, request.object, settings)
    template = workloads.template(request.kind, request.object)
    decision = decide(carried.annotations, namespace, settings)
    choice = choose(carried.annotations, namespace, settings)
    pod = Pod(table(template, "spec"), request.namespace)
    refused = _refused(pod, decision, choice, namespace, settings)
    # The pods are made by a controller, and who ran kubectl never sees what they are warned of.
    warnings: tuple[str, ...] = ()
    if decision.explicit and refused is not None:
        warnings = (warning(f"pods will not be injected: {refused.message}"),)
    elif decision.explicit and decision.wanted:
        warnings = _about_choice(choice)
    return _Result(
        Outcome.CARRIED if carried.operations else Outcome.UNCHANGED,
        operations=tuple(carried.operations),
        warnings=warnings,
    )
