"""What the node's programs are started with: their command lines and configuration files.

Only what must differ from the defaults is set. Admission plugins are those of Kubernetes, with Pod
Security and both kinds of admission policies among them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import yaml

from tests.cluster.harness.binaries import Binaries
from tests.cluster.harness.images import PAUSE
from tests.cluster.harness.layout import (
    API_ADDRESS,
    CONTAINERD_SOCKET,
    DNS_ADDRESS,
    DOMAIN,
    NODE,
    NODE_ADDRESS,
    POD_BRIDGE,
    POD_RANGE,
    SERVICE_RANGE,
    Layout,
)

ETCD = "http://127.0.0.1:2379"
CNI_PROGRAMS = "/usr/lib/cni"
MAX_PODS = 400
KUBECONFIGS = ("admin", "controller-manager", "scheduler", "kubelet")


def write_configuration(layout: Layout, binaries: Binaries) -> None:
    """Write every file below `layout.configuration`; the certificates must be there."""
    etc = layout.configuration
    etc.mkdir()
    for user in KUBECONFIGS:
        _write_yaml(etc / f"{user}.kubeconfig", _kubeconfig(layout, user))
    _write_yaml(etc / "kubelet.yaml", _kubelet(layout))
    (etc / "containerd.toml").write_text(_containerd(layout))
    (etc / "cni").mkdir()
    (etc / "cni" / "10-pods.conflist").write_text(json.dumps(_network(), indent=2))
    (etc / "resolv.conf").write_text("")
    commands = {
        "etcd": _etcd_command(layout, binaries),
        "containerd": ["containerd", "--config", str(etc / "containerd.toml")],
        "kube-apiserver": _apiserver_command(layout, binaries),
        "kube-controller-manager": _controller_manager_command(layout, binaries),
        "kube-scheduler": _scheduler_command(layout, binaries),
        "kubelet": _kubelet_command(layout, binaries),
    }
    layout.programs.write_text(json.dumps(commands, indent=2))


def _write_yaml(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def _kubeconfig(layout: Layout, user: str) -> dict[str, object]:
    server = f"https://{API_ADDRESS}:443"
    certificate = {
        "client-certificate": str(layout.pki / f"{user}.crt"),
        "client-key": str(layout.pki / f"{user}.key"),
    }
    cluster = {"server": server, "certificate-authority": str(layout.pki / "ca.crt")}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "cluster", "cluster": cluster}],
        "users": [{"name": user, "user": certificate}],
        "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": user}}],
        "current-context": "cluster",
    }


def _kubelet(layout: Layout) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "authentication": {
            "anonymous": {"enabled": False},
            "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
        },
        "tlsCertFile": str(layout.pki / "kubelet-server.crt"),
        "tlsPrivateKeyFile": str(layout.pki / "kubelet-server.key"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        # Nobody answers there; without an address each pod gets a warning.
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": DOMAIN,
        "resolvConf": str(layout.configuration / "resolv.conf"),
        "maxPods": MAX_PODS,
        # No pod is evicted, and no image removed, because this machine's disk is full.
        "evictionHard": dict.fromkeys(
            ("memory.available", "nodefs.available", "nodefs.inodesFree", "imagefs.available"), "0%"
        ),
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        # Nobody else is slowed down: fast, and as many requests as there is work.
        "serializeImagePulls": False,
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
        "kubeAPIQPS": 500,
        "kubeAPIBurst": 1000,
        "nodeStatusUpdateFrequency": "2s",
        "syncFrequency": "5s",
    }


def _containerd(layout: Layout) -> str:
    """Version 2 of the format, which every containerd since 1.3 reads."""
    return f"""\
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
    "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]

[grpc]
address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
# To go below one's own needs CAP_SYS_RESOURCE, which root has not everywhere.
restrict_oom_score_adj = true
# A profile would be loaded into the kernel, and stay there.
disable_apparmor = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI_PROGRAMS}"
conf_dir = "{layout.configuration}/cni"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"""


def _network() -> dict[str, object]:
    """Pods on one bridge, no address translation: nothing outside this node is to be reached."""
    bridge = {
        "type": "bridge",
        "bridge": POD_BRIDGE,
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": POD_RANGE}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, ports]}


def _etcd_command(layout: Layout, binaries: Binaries) -> list[str]:
    return [
        str(binaries.etcd),
        f"--name={NODE}",
        f"--data-dir={layout.disk}/etcd",
        f"--listen-client-urls={ETCD}",
        f"--advertise-client-urls={ETCD}",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def _apiserver_command(layout: Layout, binaries: Binaries) -> list[str]:
    pki = layout.pki
    return [
        binaries.program("kube-apiserver"),
        f"--etcd-servers={ETCD}",
        "--secure-port=443",
        f"--advertise-address={NODE_ADDRESS}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        f"--client-ca-file={pki}/ca.crt",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        f"--kubelet-client-certificate={pki}/apiserver-to-kubelet.crt",
        f"--kubelet-client-key={pki}/apiserver-to-kubelet.key",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki}/sa.pub",
        f"--service-account-signing-key-file={pki}/sa.key",
        # No DNS knows the name of the node.
        "--kubelet-preferred-address-types=InternalIP",
        "--authorization-mode=Node,RBAC",
        "--allow-privileged=true",
        # Webhooks are called at the addresses of their pods, so that no kube-proxy is needed.
        "--enable-aggregator-routing=true",
        # Both want notifications of progress, which etcd has since 3.4.31.
        "--feature-gates=WatchList=false,SizeBasedListCostEstimate=false",
    ]


def _controller_manager_command(layout: Layout, binaries: Binaries) -> list[str]:
    return [
        binaries.program("kube-controller-manager"),
        f"--kubeconfig={layout.configuration}/controller-manager.kubeconfig",
        f"--root-ca-file={layout.pki}/ca.crt",
        f"--service-account-private-key-file={layout.pki}/sa.key",
        f"--cluster-signing-cert-file={layout.pki}/ca.crt",
        f"--cluster-signing-key-file={layout.pki}/ca.key",
        "--use-service-account-credentials=true",
        "--leader-elect=false",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    ]


def _scheduler_command(layout: Layout, binaries: Binaries) -> list[str]:
    return [
        binaries.program("kube-scheduler"),
        f"--kubeconfig={layout.configuration}/scheduler.kubeconfig",
        "--leader-elect=false",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    ]


def _kubelet_command(layout: Layout, binaries: Binaries) -> list[str]:
    return [
        binaries.program("kubelet"),
        f"--kubeconfig={layout.configuration}/kubelet.kubeconfig",
        f"--config={layout.configuration}/kubelet.yaml",
        f"--hostname-override={NODE}",
        f"--node-ip={NODE_ADDRESS}",
    ]


def node_environment(layout: Layout) -> dict[str, str]:
    """The environment of the node's programs and of commands on it."""
    system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {
        "PATH": system,
        "HOME": str(layout.home),
        "KUBECONFIG": str(layout.kubeconfig),
        "LANG": "C.UTF-8",
        "TERM": os.environ.get("TERM", "dumb"),
    }
