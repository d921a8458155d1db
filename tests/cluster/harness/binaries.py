"""The programs of a cluster: Kubernetes and Helm from their Go modules, the rest from Debian.

Kubernetes and Helm are built once for each state of the Go module in `tests/cluster/binaries`, and
kept. etcd is taken out of its package and not installed, because installing it starts a service.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.cache import cache_dir, cached, key_of
from tests.cluster.harness.errors import ClusterError, ClusterUnavailableError
from tests.cluster.harness.go import go_command, why_no_go

MODULE = Path(__file__).parents[1] / "binaries"
SOURCES = ("go.mod", "go.sum", "kubernetes/main.go", "pause/main.go")
HELM_PACKAGE = "helm.sh/helm/v4/cmd/helm"
PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl")
"""The names that the one binary answers to."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """Where the programs of a cluster are."""

    kubernetes: Path
    """The directory with helm, pause, and a link for each program of Kubernetes."""
    etcd: Path

    def program(self, name: str) -> str:
        """The path of one of the programs that were built."""
        return str(self.kubernetes / name)


def binaries() -> Binaries:
    """The programs, built or unpacked if need be, which takes minutes the first time.

    Raises ClusterUnavailableError where there is no Go that can build them.
    """
    root = cache_dir("cluster")
    kubernetes = cached(root, _key(), _build)
    return Binaries(kubernetes, _etcd(root))


def why_unavailable() -> str:
    """Why Kubernetes cannot be built here, in one line; empty if it can, or has been."""
    if (cache_dir("cluster") / _key()).is_dir():
        return ""
    return why_no_go(_needed_go())


def _key() -> str:
    sources = {name: (MODULE / name).read_text(encoding="utf-8") for name in SOURCES}
    return key_of("kubernetes", [sources, PROGRAMS, _linker_flags()])


def _in_module(pattern: str) -> str:
    """What the group of a pattern matches in a line of go.mod."""
    text = (MODULE / "go.mod").read_text(encoding="utf-8")
    found = re.search(pattern, text, re.MULTILINE)
    if found is None:
        raise ClusterError(f"{MODULE}/go.mod has no line like {pattern}")
    return found[1]


def kubernetes_version() -> str:
    """The version of Kubernetes that is built, such as v1.36.3."""
    return _in_module(r"^\s*k8s\.io/kubernetes (v\S+)$")


def _needed_go() -> str:
    return _in_module(r"^go (\S+)$")


def _linker_flags() -> str:
    """A module does not tell its program which version it is."""
    major, minor = kubernetes_version().lstrip("v").split(".")[:2]
    values = {"gitVersion": kubernetes_version(), "gitMajor": major, "gitMinor": minor}
    package = "k8s.io/component-base/version"
    return " ".join(["-s -w", *(f"-X {package}.{name}={v}" for name, v in values.items())])


def _build(directory: Path) -> None:
    go = go_command(_needed_go(), cache_dir("cluster"))
    environment = {**os.environ, "CGO_ENABLED": "0"}
    flags = ("-trimpath", "-ldflags", _linker_flags(), "-o", f"{directory}/")
    packages = ("./kubernetes", "./pause", HELM_PACKAGE)
    done = subprocess.run(
        [go, "build", *flags, *packages],
        cwd=MODULE,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ClusterError(f"go build failed:\n{done.stderr.strip()[-2000:]}")
    for name in PROGRAMS:
        (directory / name).symlink_to("kubernetes")


def _etcd(root: Path) -> Path:
    installed = shutil.which("etcd")
    if installed is not None:
        return Path(installed)
    return cached(root, "etcd", _unpack_etcd) / "etcd"


def _unpack_etcd(directory: Path) -> None:
    work = directory / "work"
    work.mkdir()
    if not _apt("download", "etcd-server", cwd=work):
        # The lists of a fresh machine are empty.
        _apt("update", cwd=work)
        if not _apt("download", "etcd-server", cwd=work):
            raise ClusterUnavailableError("apt has no package etcd-server; put etcd into the PATH")
    (package,) = work.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", str(package), str(work / "root")], check=True)
    shutil.copy2(work / "root/usr/bin/etcd", directory / "etcd")
    shutil.rmtree(work)


def _apt(*words: str, cwd: Path) -> bool:
    if shutil.which("apt-get") is None:
        raise ClusterUnavailableError("there is no etcd here, and no apt-get to get it with")
    # The sandbox user of apt may not write into our directory.
    options = ("-qq", "-o", "APT::Sandbox::User=root", "-o", "DPkg::Lock::Timeout=300")
    done = subprocess.run(["apt-get", *options, *words], cwd=cwd, capture_output=True, check=False)
    return done.returncode == 0
