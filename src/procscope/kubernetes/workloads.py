"""Annotations of a workload are carried to the template of its pods, and taken away again.

The template's own annotations win, for the annotations that opt in and out as one, for the files,
and for what is pinned. For a CronJob those on its Job template come before those on itself.

What is carried is noted in `procscope.io/carried` on the template, a JSON object of names and
values. So an annotation that is later changed on the workload, or taken away, is changed or taken
away on the template too, unless somebody has changed it there since: then it is the template's own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from procscope.kubernetes.patches import Operation, remove, set_keys
from procscope.kubernetes.raw import flag, table, tables, texts
from procscope.kubernetes.settings import CARRIED, FILES, PINNED, Settings

_TEMPLATE: Final = ("spec", "template")
TEMPLATES: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("apps", "deployments"): _TEMPLATE,
    ("apps", "statefulsets"): _TEMPLATE,
    ("apps", "daemonsets"): _TEMPLATE,
    ("apps", "replicasets"): _TEMPLATE,
    ("batch", "jobs"): _TEMPLATE,
    ("batch", "cronjobs"): ("spec", "jobTemplate", "spec", "template"),
}
"""By API group and resource, where the template of the pods is."""
_CREATE_ONLY: Final = ("batch", "jobs")
"""The template of a Job cannot be changed (ValidateJobUpdate() of the API server)."""


@dataclass(frozen=True, slots=True)
class Carried:
    """`operations` bring the template's annotations to `annotations`."""

    operations: list[Operation]
    annotations: dict[str, str]


def changeable(kind: tuple[str, str], operation: str, workload: Mapping[str, Any]) -> bool:
    """Whether the template of this workload may be changed now. Raises MalformedError.

    Not where a controller made it (a ReplicaSet of a Deployment, a Job of a CronJob): it would find
    another template than it wrote, and make the next one for ever.
    """
    metadata = table(workload, "metadata")
    if any(flag(owner, "controller") for owner in tables(metadata, "ownerReferences")):
        return False
    if metadata.get("deletionTimestamp") is not None:
        return False
    return operation == "CREATE" or (operation == "UPDATE" and kind != _CREATE_ONLY)


def template(kind: tuple[str, str], workload: Mapping[str, Any]) -> dict[str, Any]:
    """The template of the workload's pods. Raises MalformedError."""
    found = dict(workload)
    for key in TEMPLATES[kind]:
        found = table(found, key)
    return found


def carry(kind: tuple[str, str], workload: Mapping[str, Any], settings: Settings) -> Carried:
    """How the template's annotations are to be changed. Raises MalformedError."""
    metadata = table(template(kind, workload), "metadata")
    present = texts(metadata, "annotations")
    groups = (settings.inject_annotations, (FILES,), (PINNED,))
    noted = _noted(present)
    # What somebody has changed since it was carried is the template's own.
    ours = {
        name
        for names in groups
        for name in names
        if name in noted and present.get(name) == noted[name]
    }
    own = present.keys() - ours
    wanted: dict[str, str] = {}
    for names in groups:
        if not own.intersection(names):
            wanted |= _nearest(names, kind, workload)
    target = {name: value for name, value in present.items() if name not in {*ours, CARRIED}}
    target |= wanted
    if wanted:
        target[CARRIED] = json.dumps(wanted, sort_keys=True, separators=(",", ":"))
    return Carried(_operations(kind, workload, present, target), target)


def _nearest(
    names: tuple[str, ...], kind: tuple[str, str], workload: Mapping[str, Any]
) -> dict[str, str]:
    """Those of the annotations that the object nearest to the template has."""
    levels = [workload]
    if kind == ("batch", "cronjobs"):
        levels.insert(0, table(table(workload, "spec"), "jobTemplate"))
    for level in levels:
        annotations = texts(table(level, "metadata"), "annotations")
        if found := {name: annotations[name] for name in names if name in annotations}:
            return found
    return {}


def _operations(
    kind: tuple[str, str],
    workload: Mapping[str, Any],
    present: Mapping[str, str],
    target: Mapping[str, str],
) -> list[Operation]:
    if present == target:
        return []
    path = TEMPLATES[kind]
    found = template(kind, workload)
    if found.get("metadata") is None:
        return set_keys(found, {"metadata": {"annotations": dict(target)}}, *path)
    if found["metadata"].get("annotations") is None:
        return set_keys(None, target, *path, "metadata", "annotations")
    return [
        *(remove(*path, "metadata", "annotations", name) for name in present.keys() - target),
        *set_keys(present, target, *path, "metadata", "annotations"),
    ]


def _noted(annotations: Mapping[str, str]) -> dict[str, str]:
    try:
        noted = json.loads(annotations.get(CARRIED, "{}"))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(noted, dict):
        return {}
    return {name: value for name, value in noted.items() if isinstance(value, str)}
