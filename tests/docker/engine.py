"""A Docker engine of the tests' own, beside any that the machine has."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.docker.images import SEARCH
from tests.levels import cgroup_mounts

START_S = 30.0
STOP_S = 20.0
COMMAND_S = 60.0
STEP_S = 0.02
RUN_FOLDERS = tuple(
    Path(path)
    for path in ("/run/containerd/s", "/run/containerd", "/run/docker/plugins", "/run/docker")
)
"""What dockerd and the shims make whatever their roots are."""


class CommandError(AssertionError):
    """A command that was to succeed has not."""


class Engine:
    """A running dockerd, by its socket."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data_root = root / "data"
        self.environment = {
            **os.environ,
            "PATH": SEARCH,
            "DOCKER_HOST": f"unix://{root}/docker.sock",
            "DOCKER_CONFIG": str(root / "client"),
        }

    def call(
        self, *arguments: str, stdin: bytes = b"", timeout_s: float = COMMAND_S
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the client, whatever comes of it."""
        return subprocess.run(
            ["docker", *arguments],
            input=stdin,
            capture_output=True,
            env=self.environment,
            timeout=timeout_s,
            check=False,
        )

    def docker(self, *arguments: str, stdin: bytes = b"", timeout_s: float = COMMAND_S) -> str:
        """Run the client; return what it prints. Raises CommandError where it fails."""
        done = self.call(*arguments, stdin=stdin, timeout_s=timeout_s)
        if done.returncode != 0:
            errors = done.stderr.decode(errors="replace").strip()
            raise CommandError(f"docker {' '.join(arguments)}: {done.returncode}: {errors}")
        return done.stdout.decode()

    def import_image(self, name: str, archive: bytes) -> None:
        """Make an image of a root file system."""
        self.docker("import", "--change", "ENV TERM=xterm LC_ALL=C", "-", name, stdin=archive)

    def logs(self) -> str:
        """The end of what dockerd has said."""
        return (self.root / "dockerd.log").read_text(errors="replace")[-3000:]


@contextmanager
def running_engine() -> Iterator[Engine]:
    """Start dockerd with a root of its own; stop it and see that it leaves nothing."""
    root = Path(tempfile.mkdtemp(prefix="procscope-docker-"))
    parents = {path for path in (*_docker_cgroups(), *RUN_FOLDERS) if path.exists()}
    try:
        engine = Engine(root)
        with (root / "dockerd.log").open("wb") as log:
            dockerd = subprocess.Popen(
                _command(root), env=engine.environment, stdout=log, stderr=log
            )
        try:
            _wait_until_ready(engine, dockerd)
            yield engine
        finally:
            _stop(engine, dockerd)
        left = [*_mounts_below(root), *_processes_of(root)]
        left += [str(path) for top in _docker_cgroups() for path in _new_cgroups(top, parents)]
        if left:
            raise AssertionError("the engine left behind: " + ", ".join(left))
    finally:
        for path in (*_docker_cgroups(), *RUN_FOLDERS):
            if path.exists() and path not in parents:
                path.rmdir()
        shutil.rmtree(root)


def _command(root: Path) -> list[str]:
    """No network is set up: the containers here need none, and the host's rules stay as they are.

    containerd is dockerd's own child, with its sockets below the exec root.
    """
    configuration = root / "daemon.json"
    configuration.write_text("{}")
    return [
        "dockerd",
        *("--config-file", str(configuration)),
        *("--host", f"unix://{root}/docker.sock"),
        *("--data-root", str(root / "data"), "--exec-root", str(root / "exec")),
        *("--pidfile", str(root / "pid")),
        *("--iptables=false", "--ip6tables=false", "--bridge=none"),
        *("--exec-opt", "native.cgroupdriver=cgroupfs"),
    ]


def _wait_until_ready(engine: Engine, dockerd: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + START_S
    while engine.call("version").returncode != 0:
        if dockerd.poll() is not None or time.monotonic() > deadline_s:
            raise AssertionError(f"dockerd does not start: {engine.logs()}")
        time.sleep(STEP_S)


def _stop(engine: Engine, dockerd: subprocess.Popen[bytes]) -> None:
    if dockerd.poll() is None:
        containers = engine.call("ps", "-aq").stdout.decode().split()
        if containers:
            engine.call("rm", "-f", *containers)
        dockerd.send_signal(signal.SIGTERM)
    try:
        dockerd.wait(STOP_S)
    except subprocess.TimeoutExpired:
        dockerd.kill()
        dockerd.wait()
        raise AssertionError(f"dockerd does not stop: {engine.logs()}") from None


def _mounts_below(root: Path) -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        mountpoint = line.split()[4]
        if mountpoint.startswith(f"{root}/"):
            yield f"mount {mountpoint}"


def _processes_of(root: Path) -> Iterator[str]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:  # gone in between
                continue
            if f"{root}/".encode() in command:
                yield f"process {entry.name} {command[:80]!r}"


def _docker_cgroups() -> Iterator[Path]:
    """Where the cgroupfs driver makes its cgroups, in every hierarchy."""
    for mount in cgroup_mounts():
        yield mount.mountpoint / "docker"


def _new_cgroups(top: Path, parents: set[Path]) -> Iterator[Path]:
    if top not in parents and top.is_dir():
        yield from (path for path in top.iterdir() if path.is_dir())
