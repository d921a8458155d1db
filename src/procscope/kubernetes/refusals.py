"""Why a pod cannot be given files of its node, although somebody asked for it.

Each rule here keeps a pod from never starting. What is no obstacle: `hostPID`,
`shareProcessNamespace` and `hostNetwork`, since a reader's container is found by its cgroup;
privileged containers; `procMount: Unmasked`, which takes masks off and leaves mounts alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from procscope.kubernetes.decision import Decision
from procscope.kubernetes.raw import flag, table, tables, text, texts
from procscope.kubernetes.settings import NamespaceFacts, Settings
from procscope.kubernetes.words import quoted

POD_SECURITY_LABEL: Final = "pod-security.kubernetes.io/enforce"
MIRROR_ANNOTATION: Final = "kubernetes.io/config.mirror"
"""On the API server's copy of a static pod: the kubelet runs its file, whatever is changed here."""
OS_LABELS: Final = ("kubernetes.io/os", "beta.kubernetes.io/os")
NODE_CRITICAL: Final = "system-node-critical"


@dataclass(frozen=True, slots=True)
class Refusal:
    """`reason` is one of a few words, for metrics; `message` is for the person at kubectl."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod, or a template of pods: its `spec`, and the name of the namespace that it is for."""

    spec: Mapping[str, Any]
    namespace: str


def refusal(
    pod: Pod, decision: Decision, namespace: NamespaceFacts, settings: Settings
) -> Refusal | None:
    """The first reason not to inject this pod, None if it can be. Raises MalformedError."""
    return (
        _excluded(pod, settings)
        or _windows(pod)
        or _sandboxed(pod, settings)
        or _user_namespace(pod, settings)
        or _node_critical(pod, decision)
        or _namespace_rejects(pod, decision, namespace, settings)
    )


def glob_expression(patterns: Iterable[str]) -> str:
    """A regular expression for names that match a pattern; `*` stands for any characters.

    Python and RE2, which CEL has, understand it in the same way.
    """
    alternatives = (
        ".*".join(re.escape(part) for part in pattern.split("*")) for pattern in patterns
    )
    return "^(?:" + "|".join(alternatives) + ")$"


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return bool(patterns) and re.fullmatch(glob_expression(patterns), name) is not None


def _excluded(pod: Pod, settings: Settings) -> Refusal | None:
    if pod.namespace not in settings.excluded_namespaces:
        return None
    return Refusal("excluded-namespace", f"namespace {quoted(pod.namespace)} is left out")


def _windows(pod: Pod) -> Refusal | None:
    if text(table(pod.spec, "os"), "name") == "windows" or _selects_windows(pod.spec):
        return Refusal("windows", "Windows has no /proc")
    return None


def _selects_windows(spec: Mapping[str, Any]) -> bool:
    selector = texts(spec, "nodeSelector")
    if any(selector.get(label) == "windows" for label in OS_LABELS):
        return True
    affinity = table(table(spec, "affinity"), "nodeAffinity")
    required = table(affinity, "requiredDuringSchedulingIgnoredDuringExecution")
    # A node has to fit one of the terms: it is Windows if it is in each of them.
    terms = tables(required, "nodeSelectorTerms")
    return bool(terms) and all(
        any(_is_windows(expression) for expression in tables(term, "matchExpressions"))
        for term in terms
    )


def _is_windows(expression: Mapping[str, Any]) -> bool:
    return (
        expression.get("key") in OS_LABELS
        and expression.get("operator") == "In"
        and expression.get("values") == ["windows"]
    )


def _sandboxed(pod: Pod, settings: Settings) -> Refusal | None:
    name = text(pod.spec, "runtimeClassName")
    if not name or not _matches(name, settings.sandboxed_runtime_classes):
        return None
    return Refusal("sandbox", f"containers of runtime class {quoted(name)} have their own kernel")


def _user_namespace(pod: Pod, settings: Settings) -> Refusal | None:
    if settings.allow_user_namespaces or flag(pod.spec, "hostUsers") is not False:
        return None
    return Refusal("user-namespace", "hostUsers: false needs Linux 6.12 on all nodes")


def _node_critical(pod: Pod, decision: Decision) -> Refusal | None:
    # What the agent itself may have to wait for (a network, a device driver) must not wait for it.
    if decision.explicit or text(pod.spec, "priorityClassName") != NODE_CRITICAL:
        return None
    return Refusal("node-critical", f"a {NODE_CRITICAL} pod has to be annotated itself")


def _namespace_rejects(
    pod: Pod, decision: Decision, namespace: NamespaceFacts, settings: Settings
) -> Refusal | None:
    exempt = _matches(pod.namespace, settings.pod_security_exempt)
    if not namespace.known:
        # It may have a label against injection, or one that forbids hostPath volumes.
        if exempt and decision.explicit:
            return None
        return Refusal("namespace-unknown", f"namespace {quoted(pod.namespace)} is not known yet")
    level = namespace.labels.get(POD_SECURITY_LABEL, settings.default_pod_security_level)
    # Any value that is not a level is enforced as "restricted" (ParseLevel() of the API server).
    if exempt or level == "privileged":
        return None
    return Refusal(
        "pod-security",
        f"namespace {quoted(pod.namespace)} enforces Pod Security {quoted(level)}: no hostPath",
    )
