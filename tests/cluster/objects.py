"""Objects of Kubernetes as the tests apply them, as dicts."""

from __future__ import annotations

from typing import TypeAlias

from tests.cluster.harness import WEB, Json

MIB = 1024**2
LIMITS = {"memory": "256Mi", "cpu": "500m"}
LIMIT_KB = 256 * 1024
INJECT = {"procscope.io/inject": "true"}

Annotations: TypeAlias = dict[str, str]


def container(name: str = "main", *command: str, **fields: object) -> Json:
    """A container of the web image, with 256 MiB and half a CPU unless `fields` say otherwise."""
    made: Json = {
        "name": name,
        "image": WEB,
        "imagePullPolicy": "IfNotPresent",
        "resources": {"limits": dict(LIMITS)},
        **fields,
    }
    if command:
        made["command"] = list(command)
    return made


def pod(
    name: str,
    annotations: Annotations | None = None,
    containers: list[Json] | None = None,
    **spec: object,
) -> Json:
    """A pod; without `annotations` one that asks for nothing."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}, "annotations": annotations or {}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": containers or [container()],
            **spec,
        },
    }


def template(name: str, **spec: object) -> Json:
    """The pod template of a workload, without annotations."""
    made = pod(name)
    made["spec"].update(spec)
    return {"metadata": {"labels": made["metadata"]["labels"]}, "spec": made["spec"]}


def workload(kind: str, name: str, annotations: Annotations, **spec: object) -> Json:
    """A Deployment, StatefulSet, DaemonSet, ReplicaSet, Job or CronJob that is annotated itself."""
    group = "batch" if kind in ("Job", "CronJob") else "apps"
    body: Json = {"template": template(name, **spec)}
    if group == "apps":
        body["selector"] = {"matchLabels": {"app": name}}
    else:
        body["template"]["spec"]["restartPolicy"] = "Never"
    if kind == "StatefulSet":
        body["serviceName"] = name
    if kind == "CronJob":
        body = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": body}}
    return {
        "apiVersion": f"{group}/v1",
        "kind": kind,
        "metadata": {"name": name, "annotations": annotations},
        "spec": body,
    }


def mounts_of(container: Json) -> dict[str, str]:
    """The paths below /proc and /sys that a container mounts, and the volumes' names."""
    return {
        mount["mountPath"]: mount["name"]
        for mount in container.get("volumeMounts", [])
        if mount["mountPath"].startswith(("/proc/", "/sys/"))
    }


def status_of(pod: Json) -> str:
    """What admission has left on a pod; empty if nothing."""
    status: str = pod["metadata"].get("annotations", {}).get("procscope.io/status", "")
    return status
