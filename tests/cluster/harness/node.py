"""The node: a process that makes namespaces of its own, prepares them, and is their pid 1.

What a node changes on its machine, it changes in these namespaces only: mounts, interfaces,
addresses, firewall rules and processes are gone with its pid 1. /run is empty at each start,
/var/lib and /var/log are directories of the cluster. Its root is shared, as on a machine with
systemd, so that the mounts of pods with `mountPropagation: Bidirectional` reach it.

Called by `lifecycle` as `python -m tests.cluster.harness.node NAME`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from procscope.linux.syscalls import (
    CLONE_NEWIPC,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    MNT_DETACH,
    MS_BIND,
    MS_PRIVATE,
    MS_REC,
    mount,
    umount2,
    unshare,
)
from tests.cluster.harness.configuration import node_environment
from tests.cluster.harness.layout import API_ADDRESS, NODE, NODE_ADDRESS, PROJECT, Layout, layout_of
from tests.levels import unescape

CLONE_NEWNET = 0x40000000
MS_SHARED = 1 << 20

RESTART_PAUSE_S = 0.3
STARTED_FIRST = ("etcd", "containerd")

COVERED = ("/var/lib", "/var/log")
"""Directories of the machine that the node has its own of."""

TUNABLES = (
    *("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops"),
    *("kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes"),
)
"""Settings of the whole machine that a kubelet changes; here it changes copies."""


def start(layout: Layout) -> None:
    """Make the namespaces and their pid 1, write its pid, and return."""
    unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWPID)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        _join_root_cgroups()
        _prepare_mounts(layout)
        _prepare_network()
        socket.sethostname(NODE)
        _supervise(layout)
    partial = layout.init_pid.with_suffix(".partial")
    partial.write_text(f"{pid}\n")
    partial.rename(layout.init_pid)


def _join_root_cgroups() -> None:
    """Leave the cgroup of whoever started this: a node's own programs are in no container."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[0] in ("cgroup", "cgroup2"):
            Path(before.split()[4], "cgroup.procs").write_text("0")


def _prepare_mounts(layout: Layout) -> None:
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    _drop_fuse_mounts()
    mount("proc", "/proc", "proc", 0)
    _keep_tunables(layout)
    # Found again at its path, also where that is below a directory that is covered now.
    project = os.open(PROJECT, os.O_PATH | os.O_DIRECTORY)
    for path in COVERED:
        own = layout.disk / path.lstrip("/")
        own.mkdir(parents=True, exist_ok=True)
        mount(str(own), path, None, MS_BIND)
    mount("tmpfs", "/run", "tmpfs", 0, "mode=755")
    if not PROJECT.is_dir():
        PROJECT.mkdir(parents=True)
        mount(f"/proc/self/fd/{project}", str(PROJECT), None, MS_BIND | MS_REC)
    os.close(project)
    mount(None, "/", None, MS_REC | MS_SHARED)


def _drop_fuse_mounts() -> None:
    """Let go of file systems that somebody else serves, and may want to end."""
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        kind = after.split()[0]
        if kind == "fuse" or kind.startswith("fuse."):
            # One below another that has been let go is gone with it.
            with contextlib.suppress(OSError):
                umount2(unescape(before.split()[4]), MNT_DETACH)


def _keep_tunables(layout: Layout) -> None:
    copies = layout.root / "sysctl"
    for name in TUNABLES:
        path = Path("/proc/sys", name)
        if path.exists():
            copy = copies / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
            mount(str(copy), str(path), None, MS_BIND)


def _prepare_network() -> None:
    """An address for the node, and one for the API server, which clients in pods use as well."""
    commands = f"""\
link set lo up
address add {API_ADDRESS}/32 dev lo
link add node0 type bridge
address add {NODE_ADDRESS}/24 dev node0
link set node0 up
"""
    subprocess.run(["ip", "-batch", "-"], input=commands, text=True, check=True)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _supervise(layout: Layout) -> None:
    """Run the node's programs, start again those that end, and reap everybody."""
    commands: dict[str, list[str]] = json.loads(layout.programs.read_text())
    layout.logs.mkdir(exist_ok=True)
    layout.pids.mkdir(exist_ok=True)
    running = {_spawn(layout, name, command): name for name, command in commands.items()}
    while True:
        pid, _ = os.waitpid(-1, 0)
        name = running.pop(pid, None)
        if name is not None:
            time.sleep(RESTART_PAUSE_S)
            running[_spawn(layout, name, commands[name])] = name


def _spawn(layout: Layout, name: str, command: list[str]) -> int:
    environment = node_environment(layout)
    with open(layout.logs / f"{name}.log", "ab") as log:
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, log.fileno(), 1),
            (os.POSIX_SPAWN_DUP2, log.fileno(), 2),
        ]
        pid = os.posix_spawnp(
            command[0],
            command,
            environment,
            file_actions=actions,
            setsid=True,
            setsigdef=(signal.SIGINT, signal.SIGPIPE),
        )
    (layout.pids / name).write_text(f"{pid}\n")
    return pid


if __name__ == "__main__":
    start(layout_of(sys.argv[1]))
