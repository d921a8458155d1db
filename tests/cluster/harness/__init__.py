"""A real Kubernetes of one node on this machine, that one command starts and one stops.

    make cluster-up                                  # or: python -m tests.cluster.harness up
    python -m tests.cluster.harness kubectl get pods
    make cluster-down

The node is a process with mount, network, PID, IPC and UTS namespaces of its own (`node`). What
Kubernetes changes on a machine is changed inside of them, and is gone with that process: mounts of
images and volumes, interfaces, addresses, firewall rules, /run, every process. Outside there are
the directory /var/tmp/procscope-cluster-NAME, and a cgroup procscope-cluster-NAME in each
hierarchy. Clusters of different names (`--name`, `$PROCSCOPE_CLUSTER`) run beside each other.

No registry is used: images are made here and imported. There is no kube-proxy and no DNS. The API
server has the address of the service `kubernetes`, and calls webhooks at the addresses of their
pods; addresses of other services lead nowhere.

| module | what is there |
|---|---|
| `layout` | names, directories and addresses |
| `binaries` | Kubernetes and Helm, built from `tests/cluster/binaries`; etcd |
| `go` | what builds them |
| `pki` | keys and certificates |
| `configuration` | command lines and configuration files of the node's programs |
| `images` | images made from programs of this machine |
| `node` | the node's pid 1 |
| `lifecycle` | up, down, and how a command gets onto the node |
| `cluster` | what a test uses |
"""

from tests.cluster.harness.cluster import TOTAL_KB, Cluster, Json
from tests.cluster.harness.errors import (
    ClusterError,
    ClusterUnavailableError,
    CommandFailedError,
)
from tests.cluster.harness.images import PAUSE, WEB

__all__ = [
    "PAUSE",
    "TOTAL_KB",
    "WEB",
    "Cluster",
    "ClusterError",
    "ClusterUnavailableError",
    "CommandFailedError",
    "Json",
]
