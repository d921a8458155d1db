"""The levels of tests: what each needs, found out by trying and not by guessing.

A probe does the thing that its level depends on, undoes it, and tells why it did not work.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MNT_DETACH = 2

# fuse(4) accepts a mount on this descriptor before any request is answered.
FUSE_OPTIONS = "fd={fd},rootmode=40000,user_id=0,group_id=0"

# What a node of the tests' cluster is made of, with an interface between two of its pods.
UNSHARE = (
    *("unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--mount-proc"),
    *("ip", "link", "add", "type", "veth"),
)
CNI_PLUGINS = ("bridge", "host-local", "loopback", "portmap")

# Hierarchies that a limited container needs, by their v1 controller names.
V1_CONTROLLERS = ("cpu", "cpuset", "memory")


class CannotRunError(Exception):
    """The reason why a level cannot run on this machine, in one line."""


@dataclass(frozen=True, slots=True)
class CgroupMount:
    """A cgroup file system of this mount namespace."""

    mountpoint: Path
    version: int
    controllers: frozenset[str]
    """Of v1 the mount options, controllers among them; of v2 what may be enabled below its root."""


@dataclass(frozen=True, slots=True)
class Level:
    """A folder of tests with the same needs."""

    name: str
    probe: Callable[[], None]
    timeout_s: int
    """For one test that does not set its own."""
    leak_checked: bool
    """Whether each of its tests must leave the machine as it found it."""

    def why_not(self) -> str:
        """Why the level cannot run here; empty if it can."""
        return _outcome(self.probe)


@cache
def _outcome(probe: Callable[[], None]) -> str:
    try:
        probe()
    except CannotRunError as reason:
        return str(reason)
    return ""


def unescape(field: str) -> str:
    """Undo the octal escapes of a mountinfo field (`mangle` in the kernel's fs/seq_file.c)."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def cgroup_mounts() -> Iterator[CgroupMount]:
    """Every cgroup file system in `/proc/self/mountinfo`, see proc_pid_mountinfo(5)."""
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        filesystem = after.split()
        if filesystem[:1] == ["cgroup"]:
            controllers = frozenset(filesystem[-1].split(","))
            yield CgroupMount(Path(unescape(before.split()[4])), 1, controllers)
        elif filesystem[:1] == ["cgroup2"]:
            mountpoint = Path(unescape(before.split()[4]))
            listed = mountpoint / "cgroup.controllers"
            controllers = frozenset(listed.read_text().split() if listed.exists() else ())
            yield CgroupMount(mountpoint, 2, controllers)


def unit_probe() -> None:
    """Need nothing."""


def root_probe() -> None:
    """Be root."""
    if os.geteuid() != 0:
        raise CannotRunError("needs root")


def fuse_probe() -> None:
    """Mount a FUSE file system and take it away again."""
    try:
        fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise CannotRunError(f"/dev/fuse cannot be opened: {error.strerror}") from None
    libc = ctypes.CDLL(None, use_errno=True)
    directory = tempfile.mkdtemp(prefix="procscope-probe-")
    try:
        target = directory.encode()
        options = FUSE_OPTIONS.format(fd=fd).encode()
        flags = ctypes.c_ulong(MS_NOSUID | MS_NODEV | MS_NOEXEC)
        if libc.mount(b"procscope-probe", target, b"fuse", flags, options) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise CannotRunError(f"FUSE cannot be mounted: {reason}")
        # Closed first, so that nothing waits for an answer on the way out.
        os.close(fd)
        fd = -1
        libc.umount2(target, MNT_DETACH)
    finally:
        if fd >= 0:
            os.close(fd)
        os.rmdir(directory)


def cgroup_probe() -> None:
    """Make and remove a cgroup in every hierarchy that limits of a container live in."""
    mounts = list(cgroup_mounts())
    for controller in V1_CONTROLLERS:
        holders = [mount for mount in mounts if controller in mount.controllers]
        if not holders:
            raise CannotRunError(f"no cgroup hierarchy has the {controller} controller")
        probe = holders[0].mountpoint / f"probe-{os.getpid()}"
        try:
            probe.mkdir()
            probe.rmdir()
        except OSError as error:
            raise CannotRunError(f"cgroup {probe} cannot be made: {error.strerror}") from None


def integration_probe() -> None:
    """Root, FUSE and cgroups of this kernel."""
    root_probe()
    fuse_probe()
    cgroup_probe()


def _need_programs(*programs: str) -> None:
    search = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    missing = [name for name in programs if shutil.which(name, path=search) is None]
    if missing:
        raise CannotRunError(f"not installed: {', '.join(missing)}")


def docker_probe() -> None:
    """What integration needs, and a Docker engine."""
    integration_probe()
    _need_programs("docker", "dockerd", "containerd", "runc", "busybox")


def faults_probe() -> None:
    """What integration needs; the tests with Docker have a probe of their own."""
    integration_probe()


def cluster_probe() -> None:
    """Make the namespaces of a node, and have what Kubernetes runs on, or can be built with."""
    root_probe()
    cgroup_probe()
    # Here, because these packages import much that no other level needs.
    from tests.cluster.harness.binaries import why_unavailable
    from tests.docker.images import PROGRAMS

    _need_programs(*("containerd", "ctr", "runc", "ip", "iptables", "nsenter", "busybox"))
    _need_programs(*PROGRAMS)
    for plugin in CNI_PLUGINS:
        if not Path("/usr/lib/cni", plugin).exists():
            raise CannotRunError(f"not installed: the CNI plugin /usr/lib/cni/{plugin}")
    made = subprocess.run(UNSHARE, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise CannotRunError(f"no namespaces for a node: {made.stderr.strip()}")
    if reason := why_unavailable():
        raise CannotRunError(reason)


def machine_probe() -> None:
    """Have what builds and boots a machine, or be able to install it; nothing of this kernel."""
    # Here, because the package of the harness imports much that no other level needs.
    from tests.machine.harness.packages import why_unavailable

    if reason := why_unavailable():
        raise CannotRunError(reason)


LEVELS = (
    Level("unit", unit_probe, timeout_s=60, leak_checked=False),
    Level("integration", integration_probe, timeout_s=120, leak_checked=True),
    Level("docker", docker_probe, timeout_s=300, leak_checked=True),
    Level("faults", faults_probe, timeout_s=300, leak_checked=True),
    Level("cluster", cluster_probe, timeout_s=300, leak_checked=True),
    Level("machine", machine_probe, timeout_s=1800, leak_checked=False),
)

BY_NAME = {level.name: level for level in LEVELS}
