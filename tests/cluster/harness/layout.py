"""Where everything of one cluster is, and its addresses."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from tests.cache import cache_dir
from tests.cluster.harness.errors import ClusterError

NODE = "node"
NODE_ADDRESS = "192.168.222.1"
SERVICE_RANGE = "10.96.0.0/16"
API_ADDRESS = "10.96.0.1"
"""The first address of the services' range, which is that of the service `kubernetes`."""
DNS_ADDRESS = "10.96.0.10"
POD_RANGE = "10.244.0.0/16"
POD_BRIDGE = "cni0"
DOMAIN = "cluster.local"

PROJECT = Path(__file__).parents[3]
PARENT = Path("/var/tmp")
CGROUP_PREFIX = "procscope-cluster-"

CONTAINERD_SOCKET = "/run/containerd/containerd.sock"


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of one cluster. Clusters with different names do not see each other."""

    name: str

    @property
    def root(self) -> Path:
        """The one directory on this machine that the cluster writes to."""
        return PARENT / f"procscope-cluster-{self.name}"

    @property
    def cgroup(self) -> str:
        """The cgroup that the kubelet's are below, in every hierarchy."""
        return f"{CGROUP_PREFIX}{self.name}"

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.root / "pki"

    @property
    def configuration(self) -> Path:
        """The configuration of the node's programs, and kubeconfigs."""
        return self.root / "etc"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig. Its address is one of the node's network namespace."""
        return self.configuration / "admin.kubeconfig"

    @property
    def logs(self) -> Path:
        """A file for each of the node's programs."""
        return self.root / "log"

    @property
    def programs(self) -> Path:
        """The command line of each of the node's programs, as JSON."""
        return self.configuration / "programs.json"

    @property
    def pids(self) -> Path:
        """A file for each of the node's programs, with its pid on the node."""
        return self.root / "pid"

    @property
    def init_pid(self) -> Path:
        """The pid of the node's init, as this machine sees it."""
        return self.root / "init.pid"

    @property
    def disk(self) -> Path:
        """What the node sees as its directories that outlive a reboot."""
        return self.root / "disk"

    @property
    def home(self) -> Path:
        """HOME of every command, for its caches."""
        return self.root / "home"

    @property
    def lock(self) -> Path:
        """Held while the cluster is started or stopped. Its root comes and goes."""
        return cache_dir("cluster") / f"{self.name}.lock"


def layout_of(name: str | None = None) -> Layout:
    """The layout of the cluster of that name, of $PROCSCOPE_CLUSTER, or of `default`."""
    chosen = name or os.environ.get("PROCSCOPE_CLUSTER") or "default"
    if not re.fullmatch(r"[a-z0-9-]{1,32}", chosen):
        raise ClusterError(f"{chosen!r} is no name for a cluster: small letters, digits, hyphens")
    return Layout(chosen)
