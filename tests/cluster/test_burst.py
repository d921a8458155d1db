"""Many pods at once: each is injected, and the API server does not wait long for the webhook."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor

from tests.cluster.harness import Cluster
from tests.cluster.objects import INJECT, pod, status_of

PODS = 300
AT_ONCE = 6
METRIC = "apiserver_admission_webhook_admission_duration_seconds_bucket"
NOWHERE = {"procscope.test/none": "there"}
"""No node is like that: the pods are admitted, and not run."""


def durations(cluster: Cluster) -> dict[float, int]:
    """How many calls of the webhook took at most so many seconds, as the API server measures."""
    counts: dict[float, int] = {}
    for line in cluster.kubectl("get", "--raw", "/metrics").splitlines():
        if line.startswith(METRIC) and 'name="annotated.procscope.io"' in line:
            bound = re.search(r'le="([^"]+)"', line)
            assert bound is not None
            bound_s = float(bound[1].replace("+Inf", "inf"))
            counts[bound_s] = counts.get(bound_s, 0) + int(float(line.rpartition(" ")[2]))
    return counts


def test_a_burst_of_pods(chart: Cluster, namespace: str) -> None:
    """How long a call took is printed; a bound on it would fail by the clock."""
    before = durations(chart)
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

    took = {bound: count - before.get(bound, 0) for bound, count in durations(chart).items()}
    total = took[float("inf")]
    shares = {
        f"{bound * 1000:.0f} ms": f"{count / total:.1%}"
        for bound, count in took.items()
        if bound <= 0.5
    }
    print(f"{PODS} pods, {total} calls of the webhook, which took at most: {shares}")
    assert total >= PODS
