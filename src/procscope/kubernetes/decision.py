"""Whether a pod is to be injected, and with which files. Not whether it can be: `refusals`.

The nearest word counts:

1. the pod's own annotations: `procscope.io/inject`, then the others of the settings in their order;
   the first one that is there decides;
2. the label `procscope.io/inject` of its namespace;
3. `require_annotation`: False means yes.

Only "true" and "false" are words. Any other value means no, since it may have been meant so, and is
answered with a warning. What a workload says is carried to the pods' annotations (`workloads`).

The files are those of the annotation `procscope.io/files` of the pod, else of its namespace, else
those of the settings. Which of them come from the pinned tree says `procscope.io/pinned` likewise;
a value that is no word means none, which is always right, and is answered with a warning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from procscope.inject.docker import MOUNTABLE, mountable
from procscope.kubernetes.settings import FILES, INJECT, PINNED, NamespaceFacts, Settings
from procscope.kubernetes.words import quoted
from procscope.tree.sources import Pinned


@dataclass(frozen=True, slots=True)
class Decision:
    """`explicit`: the pod's own annotation said so. `problem`: why a value was not understood."""

    wanted: bool
    explicit: bool
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """`files` as in MOUNTABLE, each once, in its order; `unknown` are names of no file.

    `problem` says why it was not understood what is to be `pinned`.
    """

    files: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    pinned: Pinned = Pinned.NONE
    problem: str = ""


def decide(
    annotations: Mapping[str, str], namespace: NamespaceFacts, settings: Settings
) -> Decision:
    """What the pod with these annotations in this namespace asks for."""
    for name in settings.inject_annotations:
        if name in annotations:
            return _said(annotations[name], f"annotation {name}", explicit=True)
    if INJECT in namespace.labels:
        return _said(namespace.labels[INJECT], f"namespace label {INJECT}", explicit=False)
    return Decision(wanted=not settings.require_annotation, explicit=False)


def choose(annotations: Mapping[str, str], namespace: NamespaceFacts, settings: Settings) -> Choice:
    """Which files the pod gets, from where. An annotation of no word at all counts as absent."""
    sources = (annotations, namespace.annotations)
    chosen = _chosen(settings.files)
    for source in sources:
        names = [name.strip() for name in source.get(FILES, "").split(",") if name.strip()]
        if names:
            chosen = _chosen(names)
            break
    words = [word for source in sources if (word := source.get(PINNED, "").strip())]
    if not words:
        return replace(chosen, pinned=settings.pinned)
    try:
        return replace(chosen, pinned=Pinned(words[0]))
    except ValueError:
        known = ", ".join(f'"{which.value}"' for which in Pinned)
        return replace(chosen, problem=f"{PINNED} is {quoted(words[0])}, none of {known}")


def _said(value: str, where: str, *, explicit: bool) -> Decision:
    if value in ("true", "false"):
        return Decision(wanted=value == "true", explicit=explicit)
    problem = f'{where} is {quoted(value)}, neither "true" nor "false"'
    return Decision(wanted=False, explicit=explicit, problem=problem)


def _chosen(names: list[str] | tuple[str, ...]) -> Choice:
    known = {name: mountable(name) for name in names}
    return Choice(
        files=tuple(file for file in MOUNTABLE if file in known.values()),
        unknown=tuple(name for name, file in known.items() if file is None),
    )
