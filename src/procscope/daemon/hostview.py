"""What an agent in a pod has to see of its node: processes, cgroups, and the tree of mounts.

The kernel names cgroups as the reader's cgroup namespace has them. In a namespace of its own an
agent would see other containers' cgroups as `/../…`, which leads nowhere.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

from procscope.cgroup.hierarchy import Hierarchies, Hierarchy
from procscope.daemon.mountpoint import containing
from procscope.errors import ProcscopeError
from procscope.linux import syscalls
from procscope.linux.mountinfo import read_mountinfo
from procscope.linux.procfs import parse_cgroups

_NEEDED = ("memory", "cpu", "cpuset")
_FUSE_DEVICE = "/dev/fuse"
_FUSE_NUMBER = os.makedev(10, 229)
"""Documentation/admin-guide/devices.txt of the kernel: misc devices, FUSE_MINOR."""
_FUSE_MODE = 0o020600


def require_host_processes(who: str) -> None:
    """Raise ProcscopeError where this process, `who` by its command, sees none of the node's."""
    if os.getpid() == 1:
        raise ProcscopeError(
            f"the {who} sees no process of the node", hint="set hostPID: true for its pod"
        )


def join_host(proc: str = "/proc") -> None:
    """Enter the cgroup namespace of the node, and make the device where it is missing.

    Raises ProcscopeError where the node's cgroups cannot be seen.
    """
    _join_cgroup_namespace(proc)
    _provide_device()


def _join_cgroup_namespace(proc: str) -> None:
    try:
        own = os.stat(f"{proc}/self/ns/cgroup").st_ino
        namespace_fd = os.open(f"{proc}/1/ns/cgroup", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        # No cgroup namespaces before Linux 4.6; or one that is protected, and may be ours.
        refused = error.strerror or str(error)
    else:
        try:
            if os.fstat(namespace_fd).st_ino == own:
                return
            syscalls.setns(namespace_fd, syscalls.CLONE_NEWCGROUP)
        except OSError as error:
            refused = error.strerror or str(error)
        else:
            return
        finally:
            os.close(namespace_fd)
    if leads_out(_cgroup_paths(proc)):
        raise ProcscopeError(
            f"the node's cgroup namespace cannot be entered: {refused}",
            hint="set privileged: true for the agent's container",
        )


def leads_out(cgroup_paths: Iterable[str]) -> bool:
    """Tell whether there are cgroups outside our cgroup namespace among these.

    The kernel begins such a path with `/..` (`cgroup_path_ns_locked()` in kernel/cgroup/cgroup.c).
    """
    return any(path == "/.." or path.startswith("/../") for path in cgroup_paths)


def _cgroup_paths(proc: str) -> Iterable[str]:
    """Yield the cgroups that are mounted here, and those of all processes."""
    for mount in read_mountinfo(proc):
        if mount.fstype in ("cgroup", "cgroup2"):
            yield mount.root
    for entry in os.listdir(proc):
        if entry.isdecimal():
            with contextlib.suppress(OSError):
                path = f"{proc}/{entry}/cgroup"
                with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
                    yield from parse_cgroups(file.read()).values()


def require_host_cgroups(hierarchies: Hierarchies) -> None:
    """Raise ProcscopeError where the cgroups that are mounted are not the node's, from the top."""
    for controller in _NEEDED:
        shown = _shown(hierarchies, controller)
        if shown is None:
            raise ProcscopeError(
                f"no cgroup hierarchy with the controller {controller} is mounted",
                hint="mount the node's /sys/fs/cgroup into the pod (hostPath)",
            )
        if shown.root != "/":
            raise ProcscopeError(
                f"{shown.mount_point} shows the cgroup {shown.root} alone",
                hint="mount the node's /sys/fs/cgroup into the pod (hostPath)",
            )


def _shown(hierarchies: Hierarchies, controller: str) -> Hierarchy | None:
    version = hierarchies.version(controller)
    if version == 1:
        return hierarchies.v1[controller][0]
    return hierarchies.v2[0] if version == 2 else None


def require_shared(mountpoint: str, proc: str = "/proc") -> None:
    """Raise ProcscopeError where what is mounted at `mountpoint` is not seen on the node.

    In the node's own mount namespace it always is.
    """
    try:
        nodes = os.stat(f"{proc}/1/ns/mnt").st_ino
        own = os.stat(f"{proc}/self/ns/mnt").st_ino
    except OSError:
        return
    mount = containing(os.path.dirname(mountpoint), read_mountinfo(proc))
    if own == nodes or mount is None:
        return
    if not any(field.startswith("shared:") for field in mount.optional):
        raise ProcscopeError(
            f"the node does not see what is mounted below {mount.mount_point}",
            hint="set mountPropagation: Bidirectional for that volume",
        )


def _provide_device() -> None:
    """Make /dev/fuse where the module was not loaded yet when the container's /dev was made.

    Opening it loads the module, by the alias of its number.
    """
    with contextlib.suppress(OSError):
        if not os.path.exists(_FUSE_DEVICE):
            os.mknod(_FUSE_DEVICE, _FUSE_MODE, _FUSE_NUMBER)
