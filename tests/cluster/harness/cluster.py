"""A running cluster, as a test uses it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

from tests.cluster.harness import lifecycle
from tests.cluster.harness.binaries import binaries
from tests.cluster.harness.configuration import node_environment
from tests.cluster.harness.errors import ClusterError, CommandFailedError
from tests.cluster.harness.layout import NODE, Layout

COMMAND_S = 60.0
STEP_S = 0.05
TOTAL_KB = ("awk", "/^MemTotal/ { print $2 }", "/proc/meminfo")
"""The command by which a container tells its MemTotal."""

Json: TypeAlias = dict[str, Any]
Completed: TypeAlias = subprocess.CompletedProcess[str]


class Cluster:
    """The cluster with this layout. Methods that need it running raise ClusterError if it is not.

    A command that fails raises CommandFailedError with what it said, unless the method is one
    that returns whatever came of it.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._binaries = binaries()

    def call(
        self, *command: str, stdin: str | None = None, timeout_s: float = COMMAND_S
    ) -> Completed:
        """Run a program of this machine on the node, whatever comes of it.

        Files of this machine are there, but for those below /run, /var/lib and /var/log.
        """
        return self._run(list(command), stdin, timeout_s, in_pid_namespace=True)

    def run(self, *command: str, stdin: str | None = None, timeout_s: float = COMMAND_S) -> str:
        """Run a program of this machine on the node; return what it prints."""
        return _checked(self.call(*command, stdin=stdin, timeout_s=timeout_s))

    def popen(self, *command: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
        """Start a program, kubectl perhaps, on the node but not in its PID namespace.

        To kill the process that is returned is to kill the program.
        """
        return subprocess.Popen(
            lifecycle.entered(self.layout, self._resolved(command)),
            env=node_environment(self.layout),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
        )

    def call_kubectl(
        self, *arguments: str, stdin: str | None = None, timeout_s: float = COMMAND_S
    ) -> Completed:
        """Run kubectl as the cluster's administrator, whatever comes of it."""
        return self._run(["kubectl", *arguments], stdin, timeout_s)

    def kubectl(
        self, *arguments: str, stdin: str | None = None, timeout_s: float = COMMAND_S
    ) -> str:
        """Run kubectl as the cluster's administrator; return what it prints."""
        return _checked(self.call_kubectl(*arguments, stdin=stdin, timeout_s=timeout_s))

    def helm(self, *arguments: str, timeout_s: float = 2 * COMMAND_S) -> str:
        """Run helm as the cluster's administrator; return what it prints."""
        return _checked(self._run(["helm", *arguments], None, timeout_s))

    def apply(
        self, manifest: str | Mapping[str, Any] | Sequence[Mapping[str, Any]], *options: str
    ) -> str:
        """`kubectl apply` of YAML text, of one object, or of several."""
        return self.kubectl("apply", "-f", "-", *options, stdin=_text_of(manifest))

    def get(self, *arguments: str) -> Json:
        """`kubectl get -o json`."""
        found: Json = json.loads(self.kubectl("get", "-o", "json", *arguments))
        return found

    def exec(self, pod: str, *command: str, namespace: str, container: str = "") -> str:
        """Run a command in a container of a pod; return what it prints."""
        where = ["--namespace", namespace, *(["--container", container] if container else [])]
        return self.kubectl("exec", *where, pod, "--", *command)

    def total_kb(self, pod: str, *, namespace: str = "default", container: str = "") -> int:
        """The MemTotal that a container of a pod reads."""
        return int(self.exec(pod, *TOTAL_KB, namespace=namespace, container=container))

    def wait(self, what: str, condition: str, *options: str, timeout_s: float = COMMAND_S) -> None:
        """`kubectl wait` for a condition (`condition=Ready`, `delete`, `jsonpath=…`)."""
        self.kubectl(
            *("wait", what, f"--for={condition}", f"--timeout={timeout_s:.0f}s", *options),
            timeout_s=timeout_s + COMMAND_S,
        )

    def load_image(self, archive: Path) -> None:
        """Import an image that `docker save` or `make image` has written."""
        self.run("ctr", "--namespace=k8s.io", "images", "import", str(archive.resolve()))

    @contextmanager
    def namespace(self, **labels: str) -> Iterator[str]:
        """A namespace with these labels; their names come as `**{"name": "value"}`.

        In the end it is deleted with all in it, and not waited for.
        """
        name = f"test-{uuid.uuid4().hex[:8]}"
        metadata = {"name": name, "labels": labels}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        try:
            # Made by a controller a moment later, and no pod is admitted without it.
            self.wait("serviceaccount/default", "create", "-n", name)
            yield name
        finally:
            # Not their own grace period, which is half a minute by default.
            self.kubectl("delete", "pods", "--all", "-n", name, "--wait=false", "--now")
            self.kubectl("delete", "namespace", name, "--wait=false")

    def pid_of(self, program: str) -> int:
        """The pid, on the node, of one of the node's programs."""
        return int((self.layout.pids / program).read_text())

    def restart(self, program: str) -> None:
        """End one of the node's programs, and wait until it has been started again."""
        old, since_s = self.pid_of(program), time.time()
        self.run("kill", "-TERM", str(old))
        _until(lambda: self.pid_of(program) != old, f"{program} does not end")
        self._wait_after(since_s)

    def reboot(self) -> None:
        """Kill every process of the node at once, and start it again with its disk."""
        since_s = time.time()
        lifecycle.stop_node(self.layout)
        lifecycle.start_node(self.layout)
        self._wait_after(since_s)

    def _wait_after(self, since_s: float) -> None:
        """Return when the node is ready again: what it said before `since_s` does not count."""
        lifecycle.wait_ready(self.layout, self._binaries)
        _until(lambda: self._heartbeat_s() > since_s, "the kubelet says nothing")
        _until(self._knows_its_pods, "the kubelet does not see its pods")

    def _heartbeat_s(self) -> float:
        """When the kubelet last said that the node is ready, in whole seconds."""
        (node,) = self.get("nodes")["items"]
        conditions = {each["type"]: each for each in node["status"]["conditions"]}
        said = conditions["Ready"]["lastHeartbeatTime"].removesuffix("Z")
        return datetime.fromisoformat(f"{said}+00:00").timestamp()

    def _knows_its_pods(self) -> bool:
        listed = self.get("pods", "-A")["items"]
        known = json.loads(self.kubectl("get", "--raw", f"/api/v1/nodes/{NODE}/proxy/pods"))
        uids = {each["metadata"]["uid"] for each in known["items"] or ()}
        return all(each["metadata"]["uid"] in uids for each in listed)

    def log(self, program: str) -> str:
        """What one of the node's programs has said."""
        return (self.layout.logs / f"{program}.log").read_text(errors="replace")

    def _resolved(self, command: Sequence[str]) -> list[str]:
        """Programs that were built are not in the node's PATH."""
        if command[0] in ("kubectl", "helm"):
            return [self._binaries.program(command[0]), *command[1:]]
        return list(command)

    def _run(
        self,
        command: list[str],
        stdin: str | None,
        timeout_s: float,
        *,
        in_pid_namespace: bool = False,
    ) -> Completed:
        """Run to the end; when the time is over, kill also what nsenter(1) has forked."""
        entered = lifecycle.entered(
            self.layout, self._resolved(command), in_pid_namespace=in_pid_namespace
        )
        with subprocess.Popen(
            entered,
            env=node_environment(self.layout),
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(stdin, timeout_s)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(command, process.returncode, out, err)


def _until(condition: Callable[[], bool], reason: str) -> None:
    deadline_s = time.monotonic() + COMMAND_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise ClusterError(reason)
        time.sleep(STEP_S)


def _checked(done: Completed) -> str:
    if done.returncode != 0:
        words = " ".join(done.args)
        raise CommandFailedError(f"{words}: {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def _text_of(manifest: str | Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> str:
    """JSON is YAML, and so is a sequence of JSON documents with separators."""
    if isinstance(manifest, str):
        return manifest
    objects = [manifest] if isinstance(manifest, Mapping) else manifest
    return "\n---\n".join(json.dumps(each) for each in objects)
