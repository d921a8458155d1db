"""Where a caller may make cgroups: anywhere as root, else in what systemd has delegated.

Follows systemd's `docs/CGROUP_DELEGATION.md`: an unprivileged process may divide the v2 cgroup it
is in, if that was delegated to its user; `systemd-run --user --scope -p Delegate=yes` gives it
one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence

from procscope.cgroup.hierarchy import Hierarchies, discover
from procscope.ids import CgroupPath
from procscope.linux.mountinfo import read_mountinfo
from procscope.linux.procfs import UNIFIED, parse_cgroups
from procscope.sandbox import cgroupfs
from procscope.sandbox.cgroups import CgroupSite
from procscope.values import frozen

IN_SCOPE = "PROCSCOPE_RUN_IN_SCOPE"
"""Set in the environment of the run that systemd-run has started, so that it does so once."""

_LIMITING = ("memory", "cpu", "cpuset")
_LAUNCHER = "launcher"
_DELEGATED_FILES = ("cgroup.procs", "cgroup.subtree_control")


@frozen
class NoSite:
    """There is no cgroup that the caller may write to."""

    reason: str


def root_site(proc: str = "/proc") -> CgroupSite:
    """Return the top of all hierarchies. Raises OSError."""
    return CgroupSite(discover(read_mountinfo(proc)))


def delegated_site(proc: str = "/proc") -> CgroupSite | NoSite:
    """Return the caller's own v2 cgroup if it may divide it, else why not.

    The caller is moved into a leaf of it: a cgroup whose children have controllers may hold no
    process itself. Raises OSError.
    """
    hierarchies = discover(read_mountinfo(proc))
    with open(
        f"{proc}/self/cgroup", encoding="utf-8", errors="surrogateescape", newline="\n"
    ) as file:
        own = parse_cgroups(file.read()).get(UNIFIED)
    directory = None if own is None else hierarchies.directory(UNIFIED, own)
    if own is None or directory is None:
        return NoSite("there is no cgroup v2 hierarchy, and v1 cannot be delegated to users")
    if not any(hierarchies.version(controller) == 2 for controller in _LIMITING):
        return NoSite("the limits are in cgroup v1 hierarchies, which only root may change")
    if not _is_delegated(directory):
        return NoSite(f"the cgroup {own} is not delegated to this user")
    return _divide(hierarchies, own, directory)


def reexec_in_scope(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Start this command again in a delegated scope of the user's service manager.

    Returns if there is no such manager to ask, or this is that second start already.
    """
    systemd_run = shutil.which("systemd-run", path=environ.get("PATH"))
    if IN_SCOPE in environ or systemd_run is None:
        return
    # A login by su or setpriv leaves out where the user's manager is to be found.
    runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    environment = {**environ, "XDG_RUNTIME_DIR": runtime, IN_SCOPE: "1"}
    scope = (systemd_run, "--user", "--scope", "--quiet", "--collect", "-p", "Delegate=yes", "--")
    if _succeeds((*scope, "true"), environment):
        command = (*scope, sys.executable, "-m", "procscope", *argv)
        os.execve(systemd_run, command, environment)


def _is_delegated(directory: str) -> bool:
    paths = (directory, *(os.path.join(directory, file) for file in _DELEGATED_FILES))
    return all(os.access(path, os.W_OK) for path in paths)


def _divide(hierarchies: Hierarchies, own: CgroupPath, directory: str) -> CgroupSite | NoSite:
    """Move this process into a leaf of its cgroup and return that cgroup as the site."""
    leaf = os.path.join(directory, _LAUNCHER)
    os.makedirs(leaf, exist_ok=True)
    cgroupfs.write(leaf, "cgroup.procs", str(os.getpid()))
    controllers = cgroupfs.read(directory, "cgroup.controllers").split()
    # memory first: it is refused beside processes, where the threaded controllers would be let in.
    for controller in sorted(controllers, key=lambda name: name != "memory"):
        try:
            cgroupfs.write(directory, "cgroup.subtree_control", f"+{controller}")
        except OSError as error:
            if error.errno == errno.EBUSY:
                with contextlib.suppress(OSError):
                    cgroupfs.write(directory, "cgroup.procs", str(os.getpid()))
                cgroupfs.remove_if_empty(leaf)
                return NoSite(f"other processes are in the cgroup {own}")
    return CgroupSite(hierarchies, own, unified_only=True)


def _succeeds(command: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Return whether a command ends with 0; execve(2) would leave no way back if it did not."""
    null = subprocess.DEVNULL
    try:
        completed = subprocess.run(
            command, env=environment, stdin=null, stdout=null, stderr=null, check=False
        )
    except OSError:
        return False
    return completed.returncode == 0
