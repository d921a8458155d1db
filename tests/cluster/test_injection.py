"""Who gets which files, by the real API server, and what their containers then read."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from tests.cluster.harness import TOTAL_KB, Cluster, Json
from tests.cluster.objects import (
    INJECT,
    LIMIT_KB,
    LIMITS,
    container,
    mounts_of,
    pod,
    status_of,
    workload,
)

ALL_PATHS = {
    *(f"/proc/{name}" for name in ("cpuinfo", "diskstats", "loadavg", "meminfo")),
    *(f"/proc/{name}" for name in ("stat", "swaps", "uptime")),
    "/sys/devices/system/cpu",
}
MOUNT = "/var/lib/procscope/mount"
SLEEP = ("sleep", "1000")


def admitted(cluster: Cluster, manifest: Json, namespace: str) -> Json:
    """What the API server makes of an object, in a dry run."""
    done = cluster.call_kubectl(
        *("create", "-f", "-", "--dry-run=server", "-o", "json", "-n", namespace),
        stdin=json.dumps(manifest),
    )
    assert done.returncode == 0, done.stderr
    made: Json = json.loads(done.stdout)
    made["warnings"] = done.stderr
    return made


def paths(made: Json) -> set[str]:
    """What the first container of a pod mounts below /proc and /sys."""
    return set(mounts_of(made["spec"]["containers"][0]))


def ready(cluster: Cluster, name: str, namespace: str) -> None:
    cluster.wait(f"pod/{name}", "condition=Ready", "-n", namespace)


@pytest.mark.parametrize(
    ("label", "annotations", "injected"),
    [
        (None, {}, False),
        (None, {"procscope.io/inject": "true"}, True),
        (None, {"initializer.kubernetes.io/lxcfs": "true"}, True),
        (None, {"initializer.kubernetes.io/lxcfs": "false"}, False),
        (None, {"procscope.io/inject": "false", "initializer.kubernetes.io/lxcfs": "true"}, False),
        ("true", {}, True),
        ("true", {"procscope.io/inject": "false"}, False),
        ("false", {}, False),
        ("false", {"procscope.io/inject": "true"}, True),
    ],
)
def test_who_is_injected(
    chart: Cluster, label: str | None, annotations: dict[str, str], injected: bool
) -> None:
    """The nearest word counts; a dry run changes nothing and says the same."""
    labels = {} if label is None else {"procscope.io/inject": label}
    with chart.namespace(**labels) as namespace:
        made = admitted(chart, pod("one", annotations), namespace)
        assert paths(made) == (ALL_PATHS if injected else set())
        assert status_of(made).startswith("injected:") == injected
        assert chart.get("pods", "-n", namespace)["items"] == []


def test_a_pod_chooses_its_files(chart: Cluster, namespace: str) -> None:
    chosen = {**INJECT, "procscope.io/files": "meminfo, cpuinfo"}
    assert paths(admitted(chart, pod("one", chosen), namespace)) == {
        "/proc/meminfo",
        "/proc/cpuinfo",
    }


def test_every_kind_of_container_reads_its_own(chart: Cluster, namespace: str) -> None:
    """Init containers, sidecars and ordinary ones, and later an ephemeral one."""
    small: dict[str, Any] = {"resources": {"limits": {"memory": "64Mi", "cpu": "500m"}}}
    containers = [container("main", *SLEEP)]
    first = [
        container("init", *TOTAL_KB, **small),
        container("sidecar", *SLEEP, restartPolicy="Always", **small),
    ]
    chart.apply(pod("kinds", INJECT, containers, initContainers=first), "-n", namespace)
    ready(chart, "kinds", namespace)
    assert chart.kubectl("logs", "kinds", "-c", "init", "-n", namespace).strip() == "65536"
    assert chart.total_kb("kinds", namespace=namespace, container="sidecar") == 64 * 1024
    assert chart.total_kb("kinds", namespace=namespace, container="main") == LIMIT_KB

    debug = ("debug", "pod/kinds", "--image=httpd:2", "--image-pull-policy=IfNotPresent")
    chart.kubectl(*debug, "--container=look", "-n", namespace, "--", *TOTAL_KB)
    ended = "jsonpath={.status.ephemeralContainerStatuses[0].state.terminated.exitCode}=0"
    chart.wait("pod/kinds", ended, "-n", namespace)
    # It has no limit of its own; the pod's is the sum of the others'.
    said = int(chart.kubectl("logs", "kinds", "-c", "look", "-n", namespace))
    assert said == LIMIT_KB + 64 * 1024


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet", "ReplicaSet", "Job"])
def test_an_annotated_workload(chart: Cluster, namespace: str, kind: str) -> None:
    name = kind.lower()
    chart.apply(workload(kind, name, INJECT), "-n", namespace)
    where = ("pods", "-l", f"app={name}", "-n", namespace)
    chart.wait(where[0], "create", *where[1:])
    chart.wait(where[0], "condition=Ready", *where[1:])
    (made,) = chart.get(*where)["items"]
    assert paths(made) == ALL_PATHS
    assert chart.total_kb(made["metadata"]["name"], namespace=namespace) == LIMIT_KB


def test_an_annotated_cron_job(chart: Cluster, namespace: str) -> None:
    job = workload("CronJob", "nightly", INJECT, containers=[container("main", *TOTAL_KB)])
    chart.apply(job, "-n", namespace)
    chart.kubectl("create", "job", "now", "--from=cronjob/nightly", "-n", namespace)
    chart.wait("job/now", "condition=Complete", "-n", namespace)
    assert chart.kubectl("logs", "job/now", "-n", namespace).strip() == str(LIMIT_KB)


def test_a_limit_of_the_whole_pod(chart: Cluster, namespace: str) -> None:
    """Two containers without limits of their own, each may use all that the pod may."""
    both = [container(name, *SLEEP, resources={}) for name in ("one", "two")]
    resources = {"limits": {"memory": "128Mi", "cpu": "1"}}
    chart.apply(pod("whole", INJECT, both, resources=resources), "-n", namespace)
    ready(chart, "whole", namespace)
    for name in ("one", "two"):
        assert chart.total_kb("whole", namespace=namespace, container=name) == 128 * 1024
        online = ("cat", "/sys/devices/system/cpu/online")
        assert chart.exec("whole", *online, namespace=namespace, container=name).strip() == "0"


def test_a_resize_in_place_is_seen(chart: Cluster, namespace: str) -> None:
    """Within 2 s of the moment when the API server has taken it, the kubelet's work included."""
    # It asks for little, so that the node has room for what it may grow to.
    little = {"requests": {"memory": "32Mi", "cpu": "10m"}, "limits": dict(LIMITS)}
    chart.apply(
        pod("grows", INJECT, [container("main", *SLEEP, resources=little)]), "-n", namespace
    )
    ready(chart, "grows", namespace)
    assert chart.total_kb("grows", namespace=namespace) == LIMIT_KB
    resources = {"limits": {"memory": "320Mi", "cpu": "1500m"}}
    patch = {"spec": {"containers": [{"name": "main", "resources": resources}]}}
    watch = (
        "while ! grep -q '^MemTotal: *327680 kB' /proc/meminfo; do :; done;"
        "while ! grep -q '^processor.*: 1' /proc/cpuinfo; do :; done; echo seen"
    )
    inside = ("exec", "-n", namespace, "grows", "--", "timeout", "50", "sh", "-c", watch)
    with chart.popen("kubectl", *inside) as seen:
        chart.kubectl(
            *("patch", "pod", "grows", "--subresource=resize", "-n", namespace),
            *("--patch", json.dumps(patch)),
        )
        start_s = time.monotonic()
        out, _ = seen.communicate(timeout=60)
    print(f"a resize was seen {time.monotonic() - start_s:.2f} s after it was accepted")
    assert out == b"seen\n"


PINNED_ROOT = re.compile(r"/[0-9a-f]{5}-[0-9a-f]{32}/")
CPUINFO, MEMINFO, CPUS = "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu"


def pinned_files(cluster: Cluster, name: str, namespace: str) -> set[str]:
    """What a pod's container has from the pinned tree, by its mount table."""
    table = cluster.exec(name, "cat", "/proc/self/mountinfo", namespace=namespace)
    mounts = [line.split() for line in table.splitlines()]
    return {words[4] for words in mounts if PINNED_ROOT.match(words[3])}


def cpus_seen(cluster: Cluster, name: str, namespace: str) -> tuple[int, str]:
    """How many a pod sees in `cpuinfo`, and which are online."""
    count = cluster.exec(name, "grep", "-c", "^processor", CPUINFO, namespace=namespace)
    online = cluster.exec(name, "cat", f"{CPUS}/online", namespace=namespace)
    return int(count), online.strip()


def test_each_container_has_its_own_of_what_is_pinned(chart: Cluster, namespace: str) -> None:
    """The runtime mounts it from inside the container; a subPath the kubelet, from the host."""
    limits = {"small": ("64Mi", "500m"), "large": ("128Mi", "2")}
    asked = {"limits": {CPUINFO, CPUS}, "all": ALL_PATHS, "none": set[str](), "no word": set()}
    expected = {}
    for word, files in asked.items():
        for size, (memory, cpu) in limits.items():
            name = f"{size}-{word.replace(' ', '-')}"
            expected[name] = files
            resources = {
                "limits": {"memory": memory, "cpu": cpu},
                "requests": {"memory": "32Mi", "cpu": "10m"},
            }
            one = container("main", *SLEEP, resources=resources)
            chart.apply(pod(name, {**INJECT, "procscope.io/pinned": word}, [one]), "-n", namespace)
    by_hand = container("main", *SLEEP)
    by_hand["volumeMounts"] = [
        {"name": "views", "mountPath": CPUINFO, "subPath": "self/proc/cpuinfo"}
    ]
    views = {"name": "views", "hostPath": {"path": MOUNT, "type": "Directory"}}
    chart.apply(pod("by-hand", {}, [by_hand], volumes=[views]), "-n", namespace)
    ready(chart, "by-hand", namespace)
    assert pinned_files(chart, "by-hand", namespace) == set()
    assert chart.exec("by-hand", "grep", "-c", "^processor", CPUINFO, namespace=namespace) == "1\n"

    for name in expected:
        ready(chart, name, namespace)
    for name, files in expected.items():
        assert pinned_files(chart, name, namespace) == files
        small = name.startswith("small")
        assert cpus_seen(chart, name, namespace) == ((1, "0") if small else (2, "0-1"))
        assert chart.total_kb(name, namespace=namespace) == (64 if small else 128) * 1024


@pytest.mark.parametrize("level", ["baseline", "restricted"])
def test_a_namespace_that_rejects_host_paths(chart: Cluster, level: str) -> None:
    """The pod runs, unchanged, and whoever made it is told."""
    modest = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    containers = [container("main", *SLEEP, securityContext=modest)]
    with chart.namespace(**{"pod-security.kubernetes.io/enforce": level}) as namespace:
        done = chart.call_kubectl(
            *("create", "-f", "-", "-n", namespace),
            stdin=json.dumps(pod("modest", INJECT, containers)),
        )
        assert done.returncode == 0, done.stderr
        assert f'Warning: procscope: not injected: namespace "{namespace}"' in done.stderr
        assert f'enforces Pod Security "{level}"' in done.stderr
        ready(chart, "modest", namespace)
        made = chart.get("pod", "modest", "-n", namespace)
        assert paths(made) == set()
        assert status_of(made).startswith("skipped: ")


def test_a_mount_of_the_containers_own_stays(chart: Cluster, namespace: str) -> None:
    chart.run("sh", "-c", "echo 'MemTotal: 1 kB' >/var/lib/own-meminfo")
    volume = {"name": "own", "hostPath": {"path": "/var/lib/own-meminfo", "type": "File"}}
    mount = {"name": "own", "mountPath": "/proc/meminfo"}
    containers = [container("main", *SLEEP, volumeMounts=[mount])]
    chart.apply(pod("own", INJECT, containers, volumes=[volume]), "-n", namespace)
    ready(chart, "own", namespace)
    assert chart.total_kb("own", namespace=namespace) == 1
    online = ("cat", "/sys/devices/system/cpu/online")
    assert chart.exec("own", *online, namespace=namespace).strip() == "0"
    made = chart.get("pod", "own", "-n", namespace)
    assert paths(made) == ALL_PATHS
    assert "main keeps its own /proc/meminfo" in status_of(made)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"os": {"name": "windows"}}, "Windows has no /proc"),
        ({"nodeSelector": {"kubernetes.io/os": "windows"}}, "Windows has no /proc"),
        ({"hostUsers": False}, "hostUsers: false needs Linux 6.12 on all nodes"),
    ],
)
def test_pods_that_cannot_take_the_files(
    chart: Cluster, namespace: str, spec: Json, reason: str
) -> None:
    made = admitted(chart, pod("one", INJECT, **spec), namespace)
    assert paths(made) == set()
    assert reason in made["warnings"]
    assert reason in status_of(made)


def test_a_runtime_with_a_kernel_of_its_own(chart: Cluster, namespace: str) -> None:
    runtime = {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": "kata-qemu"},
        "handler": "kata",
    }
    chart.apply(runtime)
    try:
        made = admitted(chart, pod("one", INJECT, runtimeClassName="kata-qemu"), namespace)
    finally:
        chart.kubectl("delete", "runtimeclass", "kata-qemu")
    assert paths(made) == set()
    assert "kernel of their own" in made["warnings"] or "own kernel" in made["warnings"]
