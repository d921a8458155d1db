"""Other ways to install, each in a cluster of its own, and how all of them go away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster.harness import Cluster, lifecycle
from tests.cluster.harness.layout import Layout
from tests.cluster.installation import (
    MANIFESTS,
    NAMESPACE,
    Images,
    install_chart,
    uninstall_chart,
    wait_for_rollout,
)
from tests.cluster.objects import INJECT, LIMIT_KB, mounts_of, pod
from tests.cluster.reading import Reader

WEB_MANIFEST = MANIFESTS / "examples" / "web.yaml"
HEAD = ("head", "-1", "/proc/meminfo")


@contextmanager
def another_cluster(first: Cluster, images: Images, suffix: str) -> Iterator[Cluster]:
    """A cluster beside the first, with the image and nothing else."""
    layout = Layout(f"{first.layout.name}-{suffix}"[-32:])
    lifecycle.up(layout)
    try:
        cluster = Cluster(layout)
        cluster.load_image(images.current)
        yield cluster
    finally:
        lifecycle.down(layout)


def mounts_of_ours(cluster: Cluster) -> list[str]:
    """Mount points of procscope that are seen on the node."""
    lines = cluster.run("cat", "/proc/self/mountinfo").splitlines()
    return [line.split()[4] for line in lines if " - fuse" in line]


def assert_gone(cluster: Cluster, reader: Reader, host_kb: int) -> None:
    """Its files are the host's again, it was not restarted, and nothing of ours is left."""
    before = reader.identity
    account = reader.wait_for(100)
    assert account.failed == 0, account.example
    assert account.totals_kb == (LIMIT_KB, host_kb)
    assert reader.identity == before
    assert mounts_of_ours(cluster) == []
    assert cluster.call("pgrep", "-f", "procscope (agent|keeper|webhook)").returncode == 1


def test_plain_manifests(cluster: Cluster, images: Images) -> None:
    """`kubectl apply -f`, the walk-through, `kubectl delete -f`."""
    everything = (MANIFESTS / "procscope.yaml").read_text()
    with another_cluster(cluster, images, "plain") as plain:
        plain.apply(everything)
        wait_for_rollout(
            plain,
            *("daemonset/procscope", "daemonset/procscope-keeper", "deployment/procscope-webhook"),
        )
        plain.apply(WEB_MANIFEST.read_text())
        plain.wait("deployment/web", "condition=Available")
        assert plain.total_kb("deployment/web") == LIMIT_KB
        reader = Reader(plain, "reader", "default")
        host_kb = int(plain.run(*HEAD).split()[1])
        plain.kubectl("delete", "-f", "-", stdin=everything, timeout_s=110)
        plain.wait("pods", "delete", "--all", "-n", NAMESPACE, timeout_s=100)
        assert_gone(plain, reader, host_kb)


def test_the_chart_without_a_webhook(cluster: Cluster, images: Images) -> None:
    """The mode `policy`: the API server itself injects, by a MutatingAdmissionPolicy."""
    with another_cluster(cluster, images, "policy") as other:
        install_chart(other, "--set", "mode=policy")
        assert "deployment" not in other.kubectl("get", "deployments", "-n", NAMESPACE)
        other.kubectl("label", "namespace", "default", "procscope.io/inject=true")
        deadline_pods = 0
        while True:
            # The API server learns of a policy a moment after it was made.
            name = f"by-policy-{deadline_pods}"
            other.apply(pod(name))
            made = other.get("pod", name)
            if mounts_of(made["spec"]["containers"][0]):
                break
            deadline_pods += 1
            assert deadline_pods < 50, "the policy has no effect"
        other.wait(f"pod/{name}", "condition=Ready")
        assert other.total_kb(name) == LIMIT_KB
        other.apply(pod("not", {"procscope.io/inject": "false"}))
        assert mounts_of(other.get("pod", "not")["spec"]["containers"][0]) == {}
        reader = Reader(other, "reader", "default")
        host_kb = int(other.run(*HEAD).split()[1])
        uninstall_chart(other)
        assert_gone(other, reader, host_kb)


def test_uninstalling_the_chart(cluster: Cluster, images: Images) -> None:
    """No pod keeps a dead file, and none is restarted; installed again, it serves new pods."""
    with another_cluster(cluster, images, "chart") as other:
        install_chart(other)
        reader = Reader(other, "reader", "default")
        host_kb = int(other.run(*HEAD).split()[1])
        uninstall_chart(other)
        assert_gone(other, reader, host_kb)
        install_chart(other)
        other.apply(pod("later", INJECT))
        other.wait("pod/later", "condition=Ready")
        assert other.total_kb("later") == LIMIT_KB
