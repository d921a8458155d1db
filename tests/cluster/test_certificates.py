"""Proves: no admission fails while certificates and authorities are replaced, by time or by hand.

Two replicas run as processes on the node, with the rights that the chart gives them. Pods are made
all the time through a webhook with `failurePolicy: Fail`, so that an API server that does not trust
what a replica serves, or finds nobody, shows as a pod that is not made.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from procscope.kubernetes.certificates import split_bundle
from tests.cluster.harness import Cluster, Json
from tests.cluster.harness.layout import NODE_ADDRESS, PROJECT

PORTS = (18443, 18444)
LIFETIME_S = 60
STEP_S = 0.1
START = 'echo $$ >"${0%.log}.pid"; exec "$@" >"$0" 2>&1'
PODS = 5
"""In one request of kubectl."""


class Replicas:
    """Two replicas of the webhook, and what the API server is told of them."""

    def __init__(self, cluster: Cluster, namespace: str, folder: Path) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.name = namespace
        self.folder = folder
        self.kubeconfig = folder / "kubeconfig"
        self.processes: list[subprocess.Popen[Any]] = []
        self.logs = [folder / f"replica-{port}.log" for port in PORTS]

    def start(self) -> None:
        """Start both; return when both are ready."""
        self.kubeconfig.write_text(json.dumps(self._kubeconfig()))
        for port, path in zip(PORTS, self.logs, strict=True):
            # In the PID namespace that /proc shows; and the log is not a pipe that nobody empties.
            entered = ("nsenter", "--pid=/proc/1/ns/pid", "--", "sh", "-c", START, str(path))
            self.processes.append(self.cluster.popen(*entered, *self._command(port)))
        self.until(lambda: all(self._is_ready(port) for port in PORTS))

    def _command(self, port: int) -> tuple[str, ...]:
        return (
            *(sys.executable, "-m", "procscope", "webhook"),
            *("--kubeconfig", str(self.kubeconfig), "--namespace", self.namespace),
            *("--listen", f":{port}", "--health-listen", f":{port + 100}", "--drain", "0"),
            *("--service", f"{self.name}-webhook", "--secret", f"{self.name}-webhook-tls"),
            *("--lease", f"{self.name}-webhook", "--webhook-configuration", self.name),
            *("--ca-lifetime", f"{LIFETIME_S}s", "--certificate-lifetime", f"{LIFETIME_S}s"),
        )

    def _kubeconfig(self) -> Json:
        """The administrator's, with the rights of the webhook's service account instead."""
        config: Json = json.loads(
            self.cluster.kubectl("config", "view", "--raw", "--flatten", "-o", "json")
        )
        account = f"{self.name}-webhook"
        token = self.cluster.kubectl("create", "token", account, "-n", self.namespace)
        for user in config["users"]:
            user["user"] = {"token": token}
        return config

    def _is_ready(self, port: int) -> bool:
        url = f"http://127.0.0.1:{port + 100}/readyz"
        program = f"import urllib.request as r; r.urlopen({url!r}, timeout=2)"
        return self.cluster.call(sys.executable, "-c", program).returncode == 0

    def stop(self) -> None:
        for path in self.logs:
            self.cluster.run("kill", "-TERM", path.with_suffix(".pid").read_text().strip())
        codes = [process.wait(20) for process in self.processes]
        for process in self.processes:
            process.communicate()
        assert codes == [0, 0], self.log()

    def log(self) -> str:
        return "\n".join(path.read_text() for path in self.logs)

    def until(self, condition: Callable[[], object], bound_s: float = 60) -> None:
        deadline_s = time.monotonic() + bound_s
        while not condition():
            assert time.monotonic() < deadline_s, f"waited in vain\n{self.log()}"
            time.sleep(STEP_S)

    def bundles(self) -> list[tuple[bytes, ...]]:
        """The authorities that each webhook is trusted by."""
        found = self.cluster.get("mutatingwebhookconfiguration", self.name)
        return [
            split_bundle(base64.b64decode(one["clientConfig"].get("caBundle", "")))
            for one in found["webhooks"]
        ]

    @contextmanager
    def pods_being_made(self) -> Iterator[list[str]]:
        """Make pods all the time; give the volumes of each, and fail if one was not made."""
        made: list[str] = []
        done = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            making = pool.submit(self._make_until, done, made)
            try:
                yield made
            finally:
                done.set()
        making.result()
        assert made

    def _make_until(self, done: threading.Event, made: list[str]) -> None:
        items = [_pod() for _ in range(PODS)]
        manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        volumes = 'jsonpath={.spec.volumes[*].name}{"\\n"}'
        create = ("create", "-n", self.namespace, "--dry-run=server", "-o", volumes, "-f", "-")
        while not done.is_set():
            lines = self.cluster.kubectl(*create, stdin=manifest).splitlines()
            assert len(lines) == PODS
            assert all("procscope-proc-meminfo" in line.split() for line in lines), lines
            made += lines


def _pod() -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "web-", "annotations": {"procscope.io/inject": "true"}},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]},
    }


def _service(name: str, namespace: str) -> list[Json]:
    """A Service whose endpoints are the processes on the node."""
    slices: list[Json] = [
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{name}-{port}",
                "namespace": namespace,
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [NODE_ADDRESS], "conditions": {"ready": True}}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        }
        for port in PORTS
    ]
    service: Json = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"ports": [{"name": "https", "port": 443}]},
    }
    return [service, *slices]


def _configuration(name: str, namespace: str) -> Json:
    """Two webhooks: each replica is called for one half of the pods or the other, at random."""
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [
            {
                "name": f"{which}.procscope.io",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "timeoutSeconds": 10,
                "clientConfig": {
                    "service": {
                        "name": f"{name}-webhook",
                        "namespace": namespace,
                        "path": "/mutate",
                    }
                },
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "rules": [
                    {
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "resources": ["pods"],
                        "operations": ["CREATE"],
                    }
                ],
            }
            for which in ("one", "other")
        ],
    }


@pytest.fixture(scope="module")
def replicas(
    cluster: Cluster, module_namespace: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Replicas]:
    """Both replicas, ready, with what the chart makes for them."""
    replicas = Replicas(cluster, module_namespace, tmp_path_factory.mktemp("replicas"))
    chart = cluster.helm(
        *("template", "certificates", str(PROJECT / "deploy/chart"), "-n", module_namespace),
        *("--set", f"fullnameOverride={replicas.name}"),
        *("--show-only", "templates/webhook/rbac.yaml"),
        *("--show-only", "templates/webhook/certificates.yaml"),
    )
    objects = [
        *_service(f"{replicas.name}-webhook", module_namespace),
        _configuration(replicas.name, module_namespace),
    ]
    with ExitStack() as stack:
        for manifest in (chart, "\n---\n".join(json.dumps(one) for one in objects)):
            cluster.apply(manifest)
            stack.callback(
                cluster.kubectl, "delete", "--ignore-not-found", "-f", "-", stdin=manifest
            )
        stack.callback(replicas.stop)
        replicas.start()
        yield replicas


def test_an_authority_is_replaced_by_time(replicas: Replicas) -> None:
    (before, _) = replicas.bundles()
    with replicas.pods_being_made() as made:
        replicas.until(lambda: not set(before) & set(replicas.bundles()[0]), 3 * LIFETIME_S)
    assert len(made) > 10 * PODS
    one, other = replicas.bundles()
    assert one == other


def test_a_secret_that_is_deleted_gives_way_to_another_authority(replicas: Replicas) -> None:
    (before, _) = replicas.bundles()
    with replicas.pods_being_made():
        replicas.cluster.kubectl(
            "delete", "secret", f"{replicas.name}-webhook-tls", "-n", replicas.namespace
        )
        replicas.until(lambda: not set(before) & set(replicas.bundles()[0]), 2 * LIFETIME_S)


def test_a_bundle_that_somebody_takes_away_comes_back(replicas: Replicas) -> None:
    patch = [
        {"op": "remove", "path": f"/webhooks/{index}/clientConfig/caBundle"} for index in (0, 1)
    ]
    replicas.cluster.kubectl(
        *("patch", "mutatingwebhookconfiguration", replicas.name, "--type=json"),
        *("-p", json.dumps(patch)),
    )
    replicas.until(lambda: all(replicas.bundles()))
    with replicas.pods_being_made() as made:
        replicas.until(lambda: made)


def test_applying_the_manifest_again_takes_nothing_away(replicas: Replicas) -> None:
    before = replicas.bundles()
    manifest = _configuration(replicas.name, replicas.namespace)
    with replicas.pods_being_made() as made:
        replicas.cluster.apply(manifest)
        count = len(made)
        replicas.until(lambda: len(made) > count + PODS)
    assert set(before[0]) & set(replicas.bundles()[0])
