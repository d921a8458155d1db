"""The patch that gives a pod its files, and the words that tell what was done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from procscope.inject.docker import MOUNTABLE
from procscope.kubernetes import mounts
from procscope.kubernetes.patches import Operation, append
from procscope.kubernetes.raw import tables, text
from procscope.kubernetes.settings import STATUS
from procscope.tree.sources import Pinned

_CONTAINERS: Final = ("initContainers", "containers")
"""Sidecars are init containers that are restarted always."""
_INJECTED: Final = "injected"


@dataclass(frozen=True, slots=True)
class Injection:
    """`operations` make the files of `given` those of the pod; `own` says what was in the way.

    `given` also has what the pod had from the same source before. `own` has, by the container's
    name, the paths of its own mounts that were in a file's way.
    """

    operations: list[Operation]
    given: tuple[str, ...]
    own: dict[str, list[str]] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """What is told on the pod: the files, and which containers keep mounts of their own."""
        kept = "; ".join(
            f"{name} keeps its own {', '.join(paths)}" for name, paths in self.own.items()
        )
        told = f"{_INJECTED}: {','.join(self.given)}" if self.given else "skipped: nothing to mount"
        return f"{told}; {kept}" if kept else told


@dataclass(frozen=True, slots=True)
class _Added:
    """What one container gets: mounts, the files that are its now, and what was in the way."""

    mounts: list[dict[str, Any]]
    given: list[str]
    own: list[str]


def inject(
    spec: Mapping[str, Any],
    files: Iterable[str],
    mountpoint: str,
    pinned: Pinned = Pinned.NONE,
) -> Injection:
    """Mount `files` into all ordinary and init containers of a new pod. Raises MalformedError."""
    volumes = tables(spec, "volumes")
    names: dict[str, str] = {}
    missing: dict[str, str] = {}
    for file in files:
        found = mounts.existing_volume(volumes, file, mountpoint)
        names[file] = found or mounts.free_name(volumes, file)
        if not found:
            missing[file] = names[file]
    operations: list[Operation] = []
    given: set[str] = set()
    own: dict[str, list[str]] = {}
    for key in _CONTAINERS:
        for index, container in enumerate(tables(spec, key)):
            added = _added(container, names)
            operations += _append_mounts(container, added.mounts, key, index)
            given.update(added.given)
            if added.own:
                own[text(container, "name")] = added.own
    new = [
        {"name": name, "hostPath": mounts.host_path(file, mountpoint, pinned)}
        for file, name in missing.items()
        if file in given
    ]
    return Injection(
        operations=append(spec.get("volumes"), new, "spec", "volumes") + operations,
        given=tuple(file for file in MOUNTABLE if file in given),
        own=own,
    )


def inject_ephemeral(
    spec: Mapping[str, Any], old_spec: Mapping[str, Any], mountpoint: str
) -> Injection:
    """Mount the pod's files into its new ephemeral containers. Raises MalformedError.

    Volumes cannot be added to a pod that exists, and ephemeral containers cannot be changed once
    they are there (ValidatePodEphemeralContainersUpdate() of the API server).
    """
    volumes = tables(old_spec, "volumes")
    found = {file: mounts.existing_volume(volumes, file, mountpoint) for file in MOUNTABLE}
    names = {file: name for file, name in found.items() if name}
    before = {text(container, "name") for container in tables(old_spec, "ephemeralContainers")}
    operations: list[Operation] = []
    given: set[str] = set()
    for index, container in enumerate(tables(spec, "ephemeralContainers")):
        if text(container, "name") not in before:
            added = _added(container, names)
            operations += _append_mounts(container, added.mounts, "ephemeralContainers", index)
            given.update(added.given)
    return Injection(operations, tuple(file for file in MOUNTABLE if file in given))


def _added(container: Mapping[str, Any], names: Mapping[str, str]) -> _Added:
    present = mounts.own_mounts(container)
    added = _Added([], [], [])
    for file, name in names.items():
        path = mounts.mount_path(file)
        if present.get(path) == name:
            added.given.append(file)
        elif obstacles := mounts.in_the_way(file, present):
            added.own.extend(obstacle for obstacle in obstacles if obstacle not in added.own)
        else:
            added.given.append(file)
            added.mounts.append({"name": name, "mountPath": path, "readOnly": True})
    return added


def _append_mounts(
    container: Mapping[str, Any], new: Sequence[object], key: str, index: int
) -> list[Operation]:
    return append(container.get("volumeMounts"), new, "spec", key, index, "volumeMounts")


def was_injected(annotations: Mapping[str, str]) -> bool:
    """Whether a pod's status says that it has been given files."""
    return annotations.get(STATUS, "").startswith(f"{_INJECTED}:")
