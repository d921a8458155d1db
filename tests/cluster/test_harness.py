"""The harness itself: the cluster is a real one, and leaves nothing behind."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.harness import WEB, Cluster, ClusterError, CommandFailedError, Json, lifecycle
from tests.cluster.harness.binaries import kubernetes_version
from tests.cluster.harness.go import release_of
from tests.cluster.harness.layout import Layout, layout_of
from tests.cluster.objects import pod
from tests.levels import cgroup_mounts


@pytest.mark.parametrize(
    ("printed", "numbers"),
    [("go1.26.6", (1, 26, 6)), ("go1.21rc2\n", (1, 21)), ("devel +a1b2c3", ()), ("", ())],
)
def test_the_release_of_go_is_understood(printed: str, numbers: tuple[int, ...]) -> None:
    assert release_of(printed) == numbers


@pytest.mark.parametrize("name", ["", "Upper", "a/b", "..", "x" * 33])
def test_a_name_that_is_no_part_of_a_path_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROCSCOPE_CLUSTER", name)
    if name:
        with pytest.raises(ClusterError, match="no name for a cluster"):
            layout_of()
    else:
        assert layout_of().name == "default"


def test_the_node_is_of_the_version_that_is_pinned(cluster: Cluster) -> None:
    (node,) = cluster.get("nodes")["items"]
    assert node["status"]["nodeInfo"]["kubeletVersion"] == kubernetes_version()


def test_a_pod_runs_and_its_limit_is_that_of_its_cgroup(cluster: Cluster, namespace: str) -> None:
    limited = pod("limited")
    limited["spec"]["containers"][0]["resources"] = {"limits": {"memory": "64Mi", "cpu": "500m"}}
    cluster.apply(limited, "-n", namespace)
    cluster.wait("pod/limited", "condition=Ready", "-n", namespace)
    paths = cluster.exec("limited", "cat", "/proc/self/cgroup", namespace=namespace)
    hierarchy, _, path = next(
        line.split(":", 2)
        for line in paths.splitlines()
        if "memory" in line.split(":")[1].split(",") or line.startswith("0::")
    )
    assert path.startswith(f"/{cluster.layout.cgroup}/kubepods/")
    holders = {
        mount.mountpoint
        for mount in cgroup_mounts()
        if (mount.version == 2) == (hierarchy == "0") and "memory" in mount.controllers
    }
    (mountpoint,) = holders
    name = "memory.max" if hierarchy == "0" else "memory.limit_in_bytes"
    assert int((mountpoint / path.lstrip("/") / name).read_text()) == 64 * 1024**2


def test_a_failing_command_in_a_pod_is_told(cluster: Cluster, namespace: str) -> None:
    cluster.apply(pod("web"), "-n", namespace)
    cluster.wait("pod/web", "condition=Ready", "-n", namespace)
    with pytest.raises(CommandFailedError, match="No such file"):
        cluster.exec("web", "cat", "/there/is/none", namespace=namespace)


def test_a_pod_reaches_the_api_server_by_the_address_it_is_told(
    cluster: Cluster, namespace: str
) -> None:
    cluster.apply(pod("client"), "-n", namespace)
    cluster.wait("pod/client", "condition=Ready", "-n", namespace)
    probe = 'nc -w 2 "$KUBERNETES_SERVICE_HOST" "$KUBERNETES_SERVICE_PORT" </dev/null'
    cluster.exec("client", "sh", "-c", probe, namespace=namespace)


def test_the_api_server_reaches_a_webhook_by_its_service(cluster: Cluster, namespace: str) -> None:
    """A plain web server answers the TLS handshake of the call: it has been reached."""
    cluster.apply(pod("hook"), "-n", namespace)
    cluster.wait("pod/hook", "condition=Ready", "-n", namespace)
    ports = [{"port": 443, "targetPort": 80}]
    service: Json = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "hook"},
        "spec": {"selector": {"app": "hook"}, "ports": ports},
    }
    rule = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["configmaps"],
    }
    webhook: Json = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": namespace},
        "webhooks": [
            {
                "name": "hook.procscope.test",
                "clientConfig": {"service": {"namespace": namespace, "name": "hook"}},
                "rules": [rule],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "failurePolicy": "Fail",
                "sideEffects": "None",
                "timeoutSeconds": 5,
                "admissionReviewVersions": ["v1"],
            }
        ],
    }
    cluster.apply(service, "-n", namespace)
    ready = "jsonpath={.endpoints[0].conditions.ready}=true"
    slices = ("-l", "kubernetes.io/service-name=hook", "-n", namespace)
    cluster.wait("endpointslice", "create", *slices)
    cluster.wait("endpointslice", ready, *slices)
    cluster.apply(webhook)
    try:
        said = set()
        for attempt in range(100):
            made = cluster.call_kubectl("create", "configmap", f"thing-{attempt}", "-n", namespace)
            said.add(made.stderr.strip())
            if "HTTP response to HTTPS client" in made.stderr:
                return
        raise AssertionError(f"the webhook has not been called: {said}")
    finally:
        cluster.kubectl("delete", "validatingwebhookconfiguration", namespace)


def test_a_mount_of_a_privileged_pod_reaches_the_node_and_other_pods(
    cluster: Cluster, namespace: str
) -> None:
    folder = f"/var/lib/{namespace}"
    volume = {"name": "shared", "hostPath": {"path": folder, "type": "DirectoryOrCreate"}}
    container = {"name": "main", "image": WEB, "imagePullPolicy": "IfNotPresent"}
    owner = {
        **container,
        "securityContext": {"privileged": True},
        "volumeMounts": [
            {"name": "shared", "mountPath": "/shared", "mountPropagation": "Bidirectional"}
        ],
    }
    user = {
        **container,
        "volumeMounts": [
            {"name": "shared", "mountPath": "/seen", "mountPropagation": "HostToContainer"}
        ],
    }
    cluster.apply(pod("owner", containers=[owner], volumes=[volume]), "-n", namespace)
    cluster.apply(pod("user", containers=[user], volumes=[volume]), "-n", namespace)
    cluster.wait("pod/owner", "condition=Ready", "-n", namespace)
    cluster.wait("pod/user", "condition=Ready", "-n", namespace)
    steps = ("mkdir /shared/m", "mount -t tmpfs none /shared/m", "cp /etc/passwd /shared/m/file")
    for step in steps:
        cluster.exec("owner", "busybox", *step.split(), namespace=namespace)
    passwd = "root:x:0:0:root:/root:/bin/sh\n"
    assert cluster.run("cat", f"{folder}/m/file") == passwd
    assert cluster.exec("user", "cat", "/seen/m/file", namespace=namespace) == passwd
    assert not Path(folder).exists(), "seen outside of the node"
    cluster.run("umount", f"{folder}/m")


def test_pid_1_of_the_node_can_be_looked_into_by_a_pod_with_host_pid(
    cluster: Cluster, namespace: str
) -> None:
    container = {
        **pod("")["spec"]["containers"][0],
        "securityContext": {"privileged": True},
    }
    cluster.apply(pod("agent", hostPID=True, containers=[container]), "-n", namespace)
    cluster.wait("pod/agent", "condition=Ready", "-n", namespace)
    for kind in ("pid", "cgroup", "mnt"):
        link = f"/proc/1/ns/{kind}"
        inside = cluster.exec("agent", "busybox", "readlink", link, namespace=namespace)
        assert inside == cluster.run("readlink", link)


def test_containerd_and_kubelet_are_started_again_and_pods_stay(
    cluster: Cluster, namespace: str
) -> None:
    cluster.apply(pod("stays"), "-n", namespace)
    cluster.wait("pod/stays", "condition=Ready", "-n", namespace)
    before = cluster.get("pod", "stays", "-n", namespace)["status"]["containerStatuses"][0]
    for program in ("containerd", "kubelet"):
        cluster.restart(program)
    assert cluster.exec("stays", "cat", "/srv/index.html", namespace=namespace) == "It works!\n"
    after = cluster.get("pod", "stays", "-n", namespace)["status"]["containerStatuses"][0]
    assert after["containerID"] == before["containerID"]


def test_a_reboot_keeps_the_disk_and_starts_the_pods_again(
    cluster: Cluster, namespace: str
) -> None:
    cluster.apply(pod("again"), "-n", namespace)
    cluster.wait("pod/again", "condition=Ready", "-n", namespace)
    cluster.run("touch", "/run/not-kept", f"/var/lib/kept-{namespace}")
    cluster.reboot()
    cluster.run("rm", f"/var/lib/kept-{namespace}")
    with pytest.raises(CommandFailedError):
        cluster.run("cat", "/run/not-kept")
    restarted = "jsonpath={.status.containerStatuses[0].restartCount}=1"
    cluster.wait("pod/again", restarted, "-n", namespace)
    cluster.wait("pod/again", "condition=Ready", "-n", namespace)


def _host_state() -> dict[str, str]:
    """What Kubernetes could have changed on this machine."""
    words = {
        "interfaces": "ip -oneline link",
        "addresses": "ip -oneline address",
        "routes": "ip route",
        "rules": "iptables-save",
        "sysctl": "sysctl vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops",
    }
    state = {name: _printed(command) for name, command in words.items()}
    for folder in ("/run", "/var/lib", "/var/lib/kubelet", "/var/lib/cni", "/etc/cni", "/opt/cni"):
        there = Path(folder)
        state[folder] = "\n".join(sorted(map(str, there.iterdir()))) if there.is_dir() else "none"
    return state


def _printed(command: str) -> str:
    """Without counters, ages and comments, which change by themselves."""
    printed = subprocess.run(command.split(), capture_output=True, text=True, check=True).stdout
    lines = [line for line in printed.splitlines() if not line.startswith(("#", ":"))]
    return "\n".join(line.split("valid_lft")[0] for line in lines)


def _traces(layout: Layout) -> Iterator[str]:
    """Everything on this machine that has the name of a cluster in it."""
    needle = f"procscope-cluster-{layout.name}"
    for parent in (layout.root.parent, *(mount.mountpoint for mount in cgroup_mounts())):
        yield from (str(path) for path in parent.iterdir() if needle in path.name)
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                command = (entry / "cmdline").read_bytes()
                mounts = (entry / "mountinfo").read_bytes()
            except OSError:  # gone in between
                continue
            if needle.encode() in command or needle.encode() in mounts:
                yield f"process {entry.name}: {command!r}"


def test_down_leaves_nothing_behind(cluster: Cluster) -> None:
    """Of a second cluster, beside the first, with a pod that has a port on the node."""
    before = _host_state()
    second = Layout(f"{cluster.layout.name}-2"[-32:])
    lifecycle.up(second)
    try:
        other = Cluster(second)
        with_port = pod("web")
        with_port["spec"]["containers"][0]["ports"] = [{"containerPort": 80, "hostPort": 8080}]
        other.apply(with_port)
        other.wait("pod/web", "condition=Ready")
        assert "It works!" in other.run("busybox", "wget", "-qO-", "http://192.168.222.1:8080/")
        assert "8080" in other.run("iptables-save")
        assert list(_traces(second))
        assert _host_state() == before
    finally:
        lifecycle.down(second)
    assert not list(_traces(second))
    assert _host_state() == before
    lifecycle.down(second)
