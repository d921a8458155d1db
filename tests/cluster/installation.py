"""procscope in a cluster: its image, made here, and the two ways to install it."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from procscope import __version__
from tests.cluster.harness import Cluster
from tests.docker.engine import Engine, running_engine

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "chart"
MANIFESTS = ROOT / "deploy" / "manifests"
NAMESPACE = "procscope"
IMAGE = f"procscope:{__version__}"
NEXT_VERSION = "99.0.0"
BUILD_S = 900.0
INSTALL = ("--namespace", NAMESPACE, "--create-namespace", "--wait", "--timeout", "110s")


@dataclass(frozen=True, slots=True)
class Images:
    """Archives: this version, and the same code that says it is NEXT_VERSION."""

    current: Path
    next: Path


@contextmanager
def images() -> Iterator[Images]:
    """`make image`, and a release after it."""
    with tempfile.TemporaryDirectory() as folder:
        made = Images(Path(folder, "current.tar"), Path(folder, "next.tar"))
        with running_engine() as engine:
            subprocess.run(
                [ROOT / "scripts" / "image", "--base", "local", "--output", made.current],
                env={**engine.environment, "ENGINE": "docker"},
                check=True,
                timeout=BUILD_S,
            )
            _make_next(engine, made.next)
        yield made


def _make_next(engine: Engine, archive: Path) -> None:
    version = "/opt/procscope/lib/python3*/site-packages/procscope/__init__.py"
    edit = f's/^__version__ = .*/__version__ = "{NEXT_VERSION}"/'
    recipe = f"FROM {IMAGE}\nUSER 0\nRUN sed -i '{edit}' {version}\nUSER 65532:65532\n"
    name = f"procscope:{NEXT_VERSION}"
    engine.docker("build", "--tag", name, "-", stdin=recipe.encode())
    engine.docker("save", "--output", str(archive), name)


def install_chart(cluster: Cluster, *options: str) -> None:
    """`helm upgrade --install` of the chart, until all of it is ready."""
    cluster.helm("upgrade", "--install", "procscope", str(CHART), *INSTALL, *options)


def roll_back_chart(cluster: Cluster) -> None:
    """`helm rollback` to the release before, until all of it is ready."""
    cluster.helm("rollback", "procscope", "--namespace", NAMESPACE, "--wait", "--timeout", "110s")


def uninstall_chart(cluster: Cluster) -> None:
    """`helm uninstall`, until all of it is gone."""
    cluster.helm("uninstall", "procscope", "--namespace", NAMESPACE, "--wait")
    cluster.wait("pods", "delete", "--all", "--namespace", NAMESPACE, timeout_s=100)


def wait_for_rollout(cluster: Cluster, *objects: str) -> None:
    """Wait until these DaemonSets and Deployments have nothing but new, ready pods."""
    for name in objects:
        cluster.kubectl("rollout", "status", name, "-n", NAMESPACE, "--timeout=100s", timeout_s=110)
