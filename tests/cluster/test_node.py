"""What befalls agent, keeper and the node's own programs, while a pod reads in a loop."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.cluster.harness import Cluster, Json
from tests.cluster.installation import (
    NAMESPACE,
    NEXT_VERSION,
    install_chart,
    roll_back_chart,
    wait_for_rollout,
)
from tests.cluster.objects import INJECT, LIMIT_KB, container, mounts_of, pod
from tests.cluster.reading import Reader, assert_unharmed
from tests.integration.waiting import eventually

AGENT, KEEPER, WEBHOOK = "daemonset/procscope", "daemonset/procscope-keeper", "procscope-webhook"
OF_AGENT = ("-l", "app.kubernetes.io/component=agent", "-n", NAMESPACE)
READS = 500


@pytest.fixture
def reader(chart: Cluster, namespace: str) -> Iterator[Reader]:
    """A pod that reads, and that nobody restarts."""
    reader = Reader(chart, "reader", namespace)
    before = reader.identity
    yield reader
    assert reader.identity == before


def told(what: str, reader: Reader) -> None:
    account = reader.account()
    print(
        f"{what}: {account.reads} reads, {account.failed} failed, slowest {account.slowest_s:.2f} s"
    )


def agent_pods(cluster: Cluster) -> list[str]:
    return [one["metadata"]["name"] for one in cluster.get("pods", *OF_AGENT)["items"]]


def versions(cluster: Cluster) -> set[str]:
    """The images of the agents that are not about to end."""
    pods = cluster.get("pods", *OF_AGENT)["items"]
    return {
        one["spec"]["containers"][0]["image"].rpartition(":")[2]
        for one in pods
        if "deletionTimestamp" not in one["metadata"]
    }


def test_the_agent_is_restarted(chart: Cluster, reader: Reader) -> None:
    """The new agent takes over before the old one is ended."""
    before = agent_pods(chart)
    chart.kubectl("rollout", "restart", AGENT, "-n", NAMESPACE)
    wait_for_rollout(chart, AGENT)
    chart.wait(f"pod/{before[0]}", "delete", "-n", NAMESPACE)
    assert not set(agent_pods(chart)) & set(before)
    account = reader.wait_for(READS)
    told("agent restarted", reader)
    assert_unharmed(account)


def test_the_agents_pod_is_deleted(chart: Cluster, reader: Reader) -> None:
    """The keeper holds the files until the next agent is there."""
    before = agent_pods(chart)
    chart.kubectl("delete", "pod", *before, "-n", NAMESPACE)
    wait_for_rollout(chart, AGENT)
    account = reader.wait_for(READS)
    told("agent's pod deleted", reader)
    assert_unharmed(account)


def test_the_agent_is_upgraded_and_rolled_back(chart: Cluster, reader: Reader) -> None:
    before = versions(chart)
    assert NEXT_VERSION not in before
    install_chart(chart, "--set", f"image.tag={NEXT_VERSION}")
    wait_for_rollout(chart, AGENT)
    eventually(lambda: versions(chart) == {NEXT_VERSION}, 30)
    assert f"procscope {NEXT_VERSION} serves" in chart.kubectl("logs", *OF_AGENT)
    upgraded = reader.wait_for(READS)
    told("agent upgraded", reader)
    assert_unharmed(upgraded)

    roll_back_chart(chart)
    wait_for_rollout(chart, AGENT)
    eventually(lambda: versions(chart) == before, 30)
    account = reader.wait_for(READS)
    told("agent upgraded and rolled back", reader)
    assert_unharmed(account)


def test_the_keeper_is_replaced(chart: Cluster, reader: Reader) -> None:
    """It is an agent's descriptors that it has held; the next keeper gets them again."""
    chart.kubectl("rollout", "restart", KEEPER, "-n", NAMESPACE)
    keepers = ("-l", "app.kubernetes.io/component=keeper", "-n", NAMESPACE)
    # One that was rolled back a moment ago may be about to end.
    chart.kubectl("delete", "pods", *keepers)
    wait_for_rollout(chart, AGENT)
    chart.wait("pods", "condition=Ready", *keepers)
    deadline_s = time.monotonic() + 30
    while "holding the daemon's descriptors" not in chart.kubectl("logs", *keepers):
        assert time.monotonic() < deadline_s, "the next keeper was given nothing"
        time.sleep(0.2)
    chart.kubectl("delete", "pod", *agent_pods(chart), "-n", NAMESPACE)
    wait_for_rollout(chart, AGENT)
    account = reader.wait_for(READS)
    told("keeper replaced, then agent deleted", reader)
    assert_unharmed(account)


def kill_all_of_procscope(cluster: Cluster) -> None:
    """SIGKILL to every process of agent and keeper."""
    cluster.run("pkill", "-KILL", "-f", "procscope (agent|keeper)")


def test_agent_and_keeper_are_killed(chart: Cluster, reader: Reader) -> None:
    """No process is left that holds the connection: the files are dead, and are healed.

    The kubelet starts at once what ended for the first time, so these are new pods.
    """
    chart.kubectl("rollout", "restart", AGENT, KEEPER, "-n", NAMESPACE)
    wait_for_rollout(chart, AGENT, KEEPER)
    assert_unharmed(reader.wait_for(READS))
    start_s = time.monotonic()
    kill_all_of_procscope(chart)
    eventually(reader.sees_its_limit, 60)
    account = reader.wait_for(READS)
    # The same clock: the node is in no time namespace of its own.
    healed_s = max(0.0, account.last_failed_s - start_s)
    print(f"killed with its keeper: {account.failed} rounds failed, healed {healed_s:.2f} s after")
    # For a moment, while a dead file is replaced, there is the host's below it.
    assert account.totals_kb[0] == LIMIT_KB
    assert account.failed > 0
    assert healed_s < 5
    wait_for_rollout(chart, AGENT, KEEPER)
    assert reader.sees_its_limit()


def test_containerd_is_restarted(chart: Cluster, reader: Reader) -> None:
    chart.restart("containerd")
    account = reader.wait_for(READS)
    told("containerd restarted", reader)
    assert_unharmed(account)


def test_without_a_webhook_pods_start(chart: Cluster, namespace: str) -> None:
    chart.kubectl("scale", "deployment", WEBHOOK, "--replicas=0", "-n", NAMESPACE)
    chart.wait("pods", "delete", "-l", "app.kubernetes.io/component=webhook", "-n", NAMESPACE)
    try:
        chart.apply(pod("alone", INJECT), "-n", namespace)
        chart.wait("pod/alone", "condition=Ready", "-n", namespace)
        made: Json = chart.get("pod", "alone", "-n", namespace)
        assert mounts_of(made["spec"]["containers"][0]) == {}
    finally:
        chart.kubectl("scale", "deployment", WEBHOOK, "--replicas=2", "-n", NAMESPACE)
        wait_for_rollout(chart, f"deployment/{WEBHOOK}")


def test_the_node_is_rebooted(chart: Cluster, namespace: str) -> None:
    """Pods that start before the agent wait for their files, and then have the right ones."""
    chart.apply(pod("stays", INJECT, [container()]), "-n", namespace)
    chart.wait("pod/stays", "condition=Ready", "-n", namespace)
    chart.reboot()
    again = "jsonpath={.status.containerStatuses[0].restartCount}=1"
    chart.wait("pod/stays", again, "-n", namespace, timeout_s=120)
    chart.wait("pod/stays", "condition=Ready", "-n", namespace)
    said = chart.exec("stays", "free", namespace=namespace).splitlines()[1].split()
    assert said[1] == str(LIMIT_KB)
    wait_for_rollout(chart, AGENT, KEEPER, f"deployment/{WEBHOOK}")
