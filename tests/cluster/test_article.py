"""The walk-through of docs/kubernetes.md: install the chart, annotate a Deployment, look inside."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.harness import Cluster
from tests.cluster.installation import MANIFESTS, NAMESPACE
from tests.cluster.objects import LIMIT_KB

WEB_MANIFEST = MANIFESTS / "examples" / "web.yaml"
ARTICLE_FILES = ("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime")


def test_the_article(chart: Cluster, namespace: str) -> None:
    """Only the apiVersion, the selector and the pull policy differ from the article's manifest."""
    chart.apply(WEB_MANIFEST.read_text(), "-n", namespace)
    chart.wait("deployment/web", "condition=Available", "-n", namespace)

    memory = chart.exec("deployment/web", "free", namespace=namespace).splitlines()[1].split()
    print(memory)
    assert memory[:2] == ["Mem:", str(LIMIT_KB)]

    described = chart.kubectl("describe", "pod", "-l", "app=web", "-n", namespace)
    for file in ARTICLE_FILES:
        assert f"/proc/{file} from procscope-proc-{file} (ro)" in described

    # coreutils' `nproc --all` takes the larger affinity where the files say 1 or 2.
    for tool in (("busybox", "nproc", "--all"), ("getconf", "_NPROCESSORS_ONLN")):
        said = chart.exec("deployment/web", *tool, namespace=namespace)
        print(*tool, said.strip())
        assert said.strip() == "1"
    assert chart.exec("deployment/web", "nproc", "--all", namespace=namespace).strip() in "12"


def test_what_the_workload_says_is_what_its_pods_get(chart: Cluster, namespace: str) -> None:
    """One ReplicaSet: the template that admission changed is the one that the controller has."""
    manifest = WEB_MANIFEST.read_text()
    chart.apply(manifest, "-n", namespace)
    chart.wait("deployment/web", "condition=Available", "-n", namespace)
    again = chart.apply(manifest, "-n", namespace)
    assert again == "deployment.apps/web unchanged\n"
    chart.kubectl("annotate", "deployment/web", "example.com/note=1", "-n", namespace)
    chart.kubectl("rollout", "status", "deployment/web", "-n", namespace)
    assert len(chart.get("replicasets", "-n", namespace)["items"]) == 1


def test_helm_test_passes(chart: Cluster) -> None:
    said = chart.helm("test", "procscope", "--namespace", NAMESPACE, "--logs")
    assert "Succeeded" in said


def test_the_example_is_the_one_that_is_documented() -> None:
    page = Path(MANIFESTS.parents[1] / "docs" / "kubernetes.md").read_text()
    assert "deploy/manifests/examples/web.yaml" in page
