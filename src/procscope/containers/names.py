"""The names people gave to containers, from the state that their runtimes keep on the node.

Every source is optional and read-only: a runtime that is not there, or keeps its state in another
form, gives no names and no error.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

from procscope.containers.container import Container

_KUBERNETES_NAMES = (
    ("io.kubernetes.cri.sandbox-name", "io.kubernetes.cri.container-name"),
    ("io.kubernetes.pod.name", "io.kubernetes.container.name"),
)
"""Annotations of containerd's CRI plugin and of CRI-O: the pod's name and the container's."""


def names_of(container: Container, root: str = "/") -> tuple[str, ...]:
    """Return the names of `container`, the runtime's own first; empty where none is known.

    A container in a pod is also known as `POD/CONTAINER`. `root` is where the host's files are.
    """
    if not container.runtime:
        return ()  # its id is a path, which no runtime knows
    names = dict.fromkeys(
        name for source in _SOURCES for name in source(container.id, root) if name
    )
    if not names and container.runtime in ("lxc", "procscope", "machine"):
        return (container.id,)
    return tuple(names)


def _docker(container_id: str, root: str) -> Iterator[str]:
    """`config.v2.json` of Docker Engine, below its data root."""
    daemon = _load(os.path.join(root, "etc/docker/daemon.json"))
    data_root = _text(daemon, "data-root") or "/var/lib/docker"
    path = os.path.join(data_root.lstrip("/"), "containers", container_id, "config.v2.json")
    yield _text(_load(os.path.join(root, path)), "Name").lstrip("/")


def _podman(container_id: str, root: str) -> Iterator[str]:
    """The list that containers/storage keeps for podman and CRI-O (root's)."""
    path = "var/lib/containers/storage/overlay-containers/containers.json"
    rows = _load(os.path.join(root, path))
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and row.get("id") == container_id:
            names = row.get("names")
            listed = names if isinstance(names, list) else []
            yield from (name for name in listed if isinstance(name, str))


def _oci_bundles(container_id: str, root: str) -> Iterator[str]:
    """The OCI bundles of containerd (every namespace) and of CRI-O."""
    tasks = os.path.join(root, "run/containerd/io.containerd.runtime.v2.task")
    bundles = [os.path.join(tasks, namespace, container_id) for namespace in _listdir(tasks)]
    storage = os.path.join(root, "run/containers/storage/overlay-containers")
    bundles.append(os.path.join(storage, container_id, "userdata"))
    for bundle in bundles:
        config = _load(os.path.join(bundle, "config.json"))
        annotations = config.get("annotations") if isinstance(config, dict) else None
        if not isinstance(annotations, dict):
            continue
        yield _text(annotations, "nerdctl/name")
        for pod_key, container_key in _KUBERNETES_NAMES:
            pod, name = _text(annotations, pod_key), _text(annotations, container_key)
            if pod and name:
                yield f"{pod}/{name}"
                yield name


_SOURCES = (_docker, _podman, _oci_bundles)


def _load(path: str) -> object:
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError, RecursionError):
        return None


def _listdir(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def _text(value: object, key: str) -> str:
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""
