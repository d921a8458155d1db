"""Targets: everything that is parsed of `/proc`, of cgroupfs, and of runtimes' own files."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

from procscope.cgroup import parsers
from procscope.cgroup.hierarchy import Hierarchies, discover
from procscope.cgroup.model import Missing
from procscope.containers.container import Container
from procscope.containers.identity import Identifier, container_by_name
from procscope.containers.names import names_of
from procscope.containers.runtimes import match_path
from procscope.ids import CgroupPath, ContainerKey, CpuId, Pid
from procscope.linux.cpulist import cut_cpumask, format_cpulist, parse_cpulist
from procscope.linux.mountinfo import parse_mountinfo
from procscope.linux.procfs import parse_cgroups, parse_nspid, parse_task_stat
from procscope.values import replace
from tests.fuzz.checks import attempt, parts, require
from tests.unit.containers.fakeproc import FakeProc

_ID = "4f" * 32
_READER, _INIT = 10, 9


def text_of(data: bytes) -> str:
    """As the sources decode what the kernel wrote."""
    return data.decode("utf-8", "surrogateescape")


@cache
def folder() -> Path:
    """A folder for what has to be a file, gone with the process."""
    path = tempfile.mkdtemp(prefix="procscope-fuzz-")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return Path(path)


def task_stat(data: bytes) -> None:
    """`/proc/PID/stat`: a state and a time that is none in the past, or ValueError."""
    stat = attempt(parse_task_stat, data, allowed=ValueError)
    if stat is not None:
        require(stat.start_ticks >= 0, stat)
        require(len(stat.state) == 1, stat)


def cgroups(data: bytes) -> None:
    """`/proc/PID/cgroup`: absolute paths, and directories that stay below their hierarchy."""
    paths = parse_cgroups(text_of(data))
    for path in paths.values():
        require(path.startswith("/"), path)
        require("\n" not in path, path)
        _check_directories(path)
        match = match_path(path)
        if match is not None:
            require(f"{path}/".startswith(f"{match.path}/"), "a container beside its path")
            require(match.id != "", "an id of nothing")
    container = container_by_name(paths)
    if container is not None:
        require(container.key.isalnum(), "a key that is no file name")
        for controller, path in container.cgroups.items():
            require(path == "/" or f"{paths[controller]}/".startswith(f"{path}/"), path)


_HIERARCHIES = discover(
    parse_mountinfo(
        "30 1 0:30 / /fuzz/unified rw - cgroup2 cgroup2 rw\n"
        "31 1 0:31 / /fuzz/memory rw - cgroup cgroup rw,memory\n"
        "32 1 0:32 /docker /fuzz/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
    )
)


def _check_directories(path: CgroupPath) -> None:
    for controller in ("", "memory", "cpu"):
        directory = _HIERARCHIES.directory(controller, path)
        for found in (*_HIERARCHIES.lineage(controller, path), *([directory] if directory else ())):
            require(os.path.normpath(found).startswith("/fuzz/"), f"{found} leads out")
            require(".." not in found.split("/"), found)


def mountinfo(data: bytes) -> None:
    """`/proc/PID/mountinfo`, and the hierarchies in it."""
    # Mount points are looked at: none may be one of this host's.
    mounts = [
        replace(mount, mount_point=f"/fuzz/{mount.mount_point}".replace("\0", "?"))
        for mount in parse_mountinfo(text_of(data))
    ]
    found: Hierarchies = discover(mounts)
    for controller in (*found.v1, "", "memory"):
        path = CgroupPath("/a/b")
        directory = found.directory(controller, path)
        require(directory is None or directory.startswith("/fuzz"), directory)
        require(len(found.lineage(controller, path)) <= 3, "ancestors that there are not")


def status(data: bytes) -> None:
    """The line `NSpid:` of `/proc/PID/status`."""
    require(all(pid >= 0 for pid in parse_nspid(text_of(data))), "a pid below 0")


@cache
def _processes() -> tuple[FakeProc, Identifier]:
    proc = FakeProc(folder() / "proc")
    proc.add(_INIT, namespace="inner", nspid=(_INIT, 1))
    proc.add(_READER, namespace="inner", nspid=(_READER, 2), parent=_INIT)
    return proc, Identifier(proc.path)


def identity(data: bytes) -> None:
    """A reader whose `cgroup` and `status`, and its init's `cgroup`, say anything at all."""
    own, status_text, of_init = parts(data, 3)
    proc, identifier = _processes()
    (proc.root / f"{_READER}/cgroup").write_bytes(own)
    (proc.root / f"{_READER}/status").write_bytes(status_text)
    (proc.root / f"{_INIT}/cgroup").write_bytes(of_init)
    try:
        container = identifier.container_of(Pid(_READER))
        require(container == identifier.container_of(Pid(_READER)), "not the same again")
    finally:
        identifier.close()
    if container is not None:
        said = {*parse_cgroups(text_of(own)).values(), *parse_cgroups(text_of(of_init)).values()}
        for path in container.cgroups.values():
            above = any(f"{one}/".startswith(f"{path}/") for one in said)
            require(path == "/" or above, f"{path} comes from nowhere")


def cpulist(data: bytes) -> None:
    """A list of CPUs, and a mask: what is parsed is printed as the same CPUs."""
    text = text_of(data)
    cpus = attempt(parse_cpulist, text, allowed=ValueError)
    if cpus is not None:
        require(tuple(sorted(set(cpus))) == cpus, "not sorted")
        require(parse_cpulist(format_cpulist(cpus)) == cpus, "not the same again")
    cut = attempt(cut_cpumask, text, (CpuId(0), CpuId(3), CpuId(64)), allowed=ValueError)
    if cut is not None:
        require(len(cut) == len(text.strip()), "a mask of another width")
        require(int(cut.replace(",", ""), 16) & ~0x1_0000_0000_0000_0009 == 0 or "," in cut, cut)


def cgroup_files(data: bytes) -> None:
    """Every file format of cgroupfs, each parser on the same bytes."""
    number = attempt(parsers.parse_number, data, allowed=ValueError)
    require(number is None or number >= 0, number)
    limit = attempt(parsers.parse_limit, data, allowed=ValueError)
    require(limit is None or isinstance(limit, Missing) or 0 <= limit < 1 << 60, limit)
    flat = parsers.parse_flat_keyed(data)
    require(all(value >= 0 for value in flat.values()), flat)
    parsers.parse_nested_keyed(data)
    quota = attempt(parsers.parse_cpu_max, data, allowed=ValueError)
    if quota is not None and not isinstance(quota, Missing):
        require(quota.quota_usec > 0 and quota.period_usec > 0, quota)
    attempt(parsers.parse_cpuset, data, allowed=ValueError)
    parsers.parse_usage_all(data)
    attempt(parsers.parse_numbers, data, allowed=ValueError)
    for counters in parsers.parse_io_stat(data).values():
        require(counters.read_bytes >= 0 and counters.writes >= 0, counters)
    parsers.parse_blkio(data)
    require(all(pid > 0 for pid in parsers.parse_pids(data)), "pid 0")


def runtime_names(data: bytes) -> None:
    """The state that runtimes keep on the node, of any content: names, and no error."""
    root = folder() / "runtimes"
    files = (
        "etc/docker/daemon.json",
        f"var/lib/docker/containers/{_ID}/config.v2.json",
        "var/lib/containers/storage/overlay-containers/containers.json",
        f"run/containerd/io.containerd.runtime.v2.task/k8s.io/{_ID}/config.json",
    )
    for name, content in zip(files, parts(data, len(files)), strict=True):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    container = Container(ContainerKey("k"), {"": CgroupPath(f"/{_ID}")}, "docker", _ID)
    require(all(isinstance(name, str) for name in names_of(container, str(root))), "no text")
