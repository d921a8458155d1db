"""Many pods at once: each is injected, and the API server does not wait long for the webhook."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

from tests.cluster.harness import Cluster
from tests.cluster.installation import NAMESPACE
from tests.cluster.objects import INJECT, pod, status_of

PODS = 300
AT_ONCE = 6
SEEN_BY_THE_API_SERVER = (
    "apiserver_admission_webhook_admission_duration_seconds_bucket",
    'name="annotated.procscope.io"',
)
SEEN_BY_THE_WEBHOOK = ("procscope_webhook_admission_duration_seconds_bucket", "")
WEBHOOK = ("-l", "app.kubernetes.io/component=webhook", "-n", NAMESPACE)
NOWHERE = {"procscope.test/none": "there"}
"""No node is like that: the pods are admitted, and not run."""


Durations: TypeAlias = dict[float, int]
"""How many calls took at most so many seconds."""


def durations(metrics: str, name: str, label: str) -> Durations:
    """The buckets of a histogram, those of all its label values together."""
    counts: Durations = {}
    for line in metrics.splitlines():
        if line.startswith(name) and label in line:
            bound = re.search(r'le="([^"]+)"', line)
            assert bound is not None
            bound_s = float(bound[1].replace("+Inf", "inf"))
            counts[bound_s] = counts.get(bound_s, 0) + int(float(line.rpartition(" ")[2]))
    return counts


def of_the_api_server(cluster: Cluster) -> Durations:
    """Of each call, as who makes it sees it: network and TLS included."""
    return durations(cluster.kubectl("get", "--raw", "/metrics"), *SEEN_BY_THE_API_SERVER)


def of_the_webhook(cluster: Cluster) -> Durations:
    """Of each answer, in both replicas."""
    names = [one["metadata"]["name"] for one in cluster.get("pods", *WEBHOOK)["items"]]
    pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
    texts = [cluster.kubectl("get", "--raw", f"{pods}/{name}:8080/proxy/metrics") for name in names]
    return durations("\n".join(texts), *SEEN_BY_THE_WEBHOOK)


def shares(before: Durations, after: Durations) -> tuple[int, str]:
    """How many calls there were, and which share of them took at most how long."""
    took = {bound_s: count - before.get(bound_s, 0) for bound_s, count in after.items()}
    calls = took[float("inf")]
    each = [f"{bound_s * 1000:g} ms {took[bound_s] / calls:.1%}" for bound_s in sorted(took)]
    return calls, ", ".join(each)


def test_a_burst_of_pods(chart: Cluster, namespace: str) -> None:
    """How long a call took is printed; a bound on it would fail by the clock."""
    before = of_the_api_server(chart), of_the_webhook(chart)
    each = PODS // AT_ONCE

    def make(part: int) -> None:
        pods = [
            pod(f"burst-{part}-{number}", INJECT, nodeSelector=NOWHERE) for number in range(each)
        ]
        listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": pods})
        create = ("create", "--validate=false", "-n", namespace, "-f", "-")
        chart.kubectl(*create, stdin=listed, timeout_s=110)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(make, range(AT_ONCE)))
    made = chart.get("pods", "-n", namespace)["items"]
    assert len(made) == PODS
    assert all(status_of(one).startswith("injected: ") for one in made)

    calls, seen_outside = shares(before[0], of_the_api_server(chart))
    answers, seen_inside = shares(before[1], of_the_webhook(chart))
    print(f"{PODS} pods; {calls} calls by the API server: {seen_outside}")
    print(f"{answers} answers of the webhook: {seen_inside}")
    assert calls >= PODS
    assert answers >= PODS
