"""Starts and stops the cluster, and tells whether one is running."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.cluster.harness.binaries import Binaries, binaries
from tests.cluster.harness.configuration import node_environment, write_configuration
from tests.cluster.harness.errors import ClusterError
from tests.cluster.harness.images import pause_image, web_image
from tests.cluster.harness.layout import PROJECT, Layout
from tests.cluster.harness.pki import make_pki
from tests.levels import cgroup_mounts

STEP_S = 0.1
READY_S = 120.0
STOP_S = 30.0
NEEDED_CONTROLLERS = frozenset(("cpu", "cpuset", "memory", "pids", "io", "hugetlb"))
CPUSET_FILES = ("cpuset.mems", "cpuset.cpus")


@contextlib.contextmanager
def _locked(layout: Layout) -> Iterator[None]:
    layout.lock.parent.mkdir(parents=True, exist_ok=True)
    with open(layout.lock, "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def init_pid(layout: Layout) -> int | None:
    """The pid of the node's pid 1 as this machine sees it; None if the cluster is not running."""
    try:
        pid = int(layout.init_pid.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, ValueError):
        return None
    ours = b"tests.cluster.harness.node" in command and layout.name.encode() in command
    return pid if ours and state not in ("Z", "X") else None


def up(layout: Layout) -> None:
    """Start the cluster, if it is not running, and return when pods can be made.

    Raises ClusterUnavailableError where this machine lacks something, and ClusterError where the
    cluster does not start; then nothing runs, and its logs are left in `layout.logs`.
    """
    built = binaries()
    with _locked(layout):
        if init_pid(layout) is not None:
            return
        _remove(layout)
        layout.root.mkdir(mode=0o755)
        layout.home.mkdir()
        make_pki(layout.pki)
        write_configuration(layout, built)
        try:
            start_node(layout)
            _import(layout, pause_image(Path(built.program("pause"))))
            _import(layout, web_image())
            wait_ready(layout, built)
        except BaseException:
            stop_node(layout)
            raise


def down(layout: Layout) -> None:
    """Stop the cluster, if it is running, and remove everything of it."""
    with _locked(layout):
        stop_node(layout)
        _remove(layout)


def start_node(layout: Layout) -> None:
    """Start the node's programs, with what there is of the cluster in `layout.root`."""
    _make_cgroups(layout)
    with open(layout.root / "node.log", "ab") as log:
        subprocess.run(
            [sys.executable, "-m", "tests.cluster.harness.node", layout.name],
            cwd=PROJECT,
            # Its own: a node does not belong to the session of tests that starts it.
            env={**node_environment(layout), "PYTHONPATH": f"{PROJECT}:{PROJECT / 'src'}"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            check=True,
        )


def stop_node(layout: Layout) -> None:
    """Kill the node's pid 1, and with it every process, mount and interface of the node."""
    pid = init_pid(layout)
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
        _wait(lambda: init_pid(layout) is None, STOP_S, "the node's processes do not end")
    layout.init_pid.unlink(missing_ok=True)
    _wait(lambda: _remove_cgroups(layout), STOP_S, f"cgroups {layout.cgroup} are still in use")


def wait_ready(layout: Layout, built: Binaries) -> None:
    """Return when the node is ready, and namespaces get what a pod needs."""
    kubectl = [built.program("kubectl"), "--request-timeout=5s"]

    def ready() -> bool:
        node = (
            "get",
            "nodes",
            "-o",
            "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}",
        )
        return (
            _output(layout, [*kubectl, *node]) == "True"
            and _output(layout, [*kubectl, "get", "serviceaccount", "default"]) != ""
        )

    _wait(ready, READY_S, f"the node is not ready, see {layout.logs}", layout)


def _output(layout: Layout, command: list[str]) -> str:
    """What a command on the node prints; empty if it fails."""
    done = subprocess.run(
        entered(layout, command),
        env=node_environment(layout),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else ""


def entered(layout: Layout, command: list[str], *, in_pid_namespace: bool = False) -> list[str]:
    """The command line that runs `command` on the node, in the directory of this process.

    Raises ClusterError if the cluster is not running.
    """
    pid = init_pid(layout)
    if pid is None:
        raise ClusterError(f"the cluster {layout.name} is not running")
    namespaces = ["--mount", "--net", "--ipc", "--uts", *(["--pid"] if in_pid_namespace else [])]
    # Paths of the directory are looked up in the node's mounts, unlike those of `nsenter --wd`.
    there = ["env", f"--chdir={Path.cwd()}"]
    return ["nsenter", f"--target={pid}", *namespaces, "--", *there, *command]


def _import(layout: Layout, image: bytes) -> None:
    """Import an image as soon as containerd is there."""

    def imported() -> bool:
        command = ["ctr", "--namespace=k8s.io", "images", "import", "-"]
        done = subprocess.run(
            entered(layout, command),
            env=node_environment(layout),
            input=image,
            capture_output=True,
            check=False,
        )
        return done.returncode == 0

    _wait(imported, READY_S, "containerd takes no image", layout)


def _make_cgroups(layout: Layout) -> None:
    for hierarchy in cgroup_mounts():
        path = hierarchy.mountpoint / layout.cgroup
        path.mkdir(exist_ok=True)
        for name in CPUSET_FILES if hierarchy.version == 1 else ():
            # A new cpuset of v1 is empty, and takes no process.
            if (path / name).exists():
                (path / name).write_text((hierarchy.mountpoint / name).read_text())
        if hierarchy.version == 2 and "memory" in hierarchy.controllers:
            wanted = sorted(NEEDED_CONTROLLERS & hierarchy.controllers)
            enabled = " ".join(f"+{name}" for name in wanted)
            (hierarchy.mountpoint / "cgroup.subtree_control").write_text(enabled)


def _remove_cgroups(layout: Layout) -> bool:
    """Remove the cgroups that can be removed; tell whether none is left."""
    left = False
    for hierarchy in cgroup_mounts():
        top = hierarchy.mountpoint / layout.cgroup
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        left = left or top.exists()
    return not left


def _remove(layout: Layout) -> None:
    _remove_cgroups(layout)
    if layout.root.exists():
        shutil.rmtree(layout.root)


def _wait(
    condition: Callable[[], bool], timeout_s: float, reason: str, layout: Layout | None = None
) -> None:
    """Wait for a condition; with a layout, also give up when its node has ended."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if layout is not None and init_pid(layout) is None:
            said = (layout.root / "node.log").read_text(errors="replace")
            raise ClusterError(f"the node ended:\n{said[-2000:]}")
        if time.monotonic() > deadline_s:
            raise ClusterError(reason)
        time.sleep(STEP_S)
