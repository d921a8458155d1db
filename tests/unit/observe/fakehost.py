"""A host of plain files: `/proc`, `/sys` and a v2 cgroup tree, and an observatory over them."""

from __future__ import annotations

import shutil
from pathlib import Path

from procscope.cgroup.hierarchy import discover
from procscope.containers.container import Container, container_of_paths
from procscope.ids import CgroupPath
from procscope.observe.host import HostFiles
from procscope.observe.observatory import Fallback, Observatory
from procscope.observe.records import RecordStore
from tests.unit.cgroup.trees import CONTROLLERS, V2_MOUNT, mounts_below, write_tree
from tests.unit.containers.fakeproc import FakeProc

MEMINFO = "MemTotal:       1048576 kB\nMemFree:         524288 kB\nSwapTotal:             0 kB\n"


class FakeHost:
    """4 CPUs, 1 GiB."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.proc = FakeProc(root / "proc")
        self.sys = root / "sys"
        self.cgroups = root / "sys/fs/cgroup"
        self.fallbacks: list[Fallback] = []
        write_tree(
            root,
            {
                "proc/meminfo": MEMINFO,
                "proc/uptime": "1000.00 2000.00\n",
                "proc/loadavg": "5.00 5.00 5.00 9/999 12345\n",
                "sys/devices/system/cpu/online": "0-3\n",
                "sys/fs/cgroup/cgroup.controllers": CONTROLLERS,
            },
        )
        self.hierarchies = discover(mounts_below(root, V2_MOUNT))
        self.records = RecordStore(str(root / "state"))

    def observatory(self) -> Observatory:
        return Observatory(
            self.hierarchies,
            HostFiles(self.proc.path, str(self.sys)),
            self.records,
            on_fallback=self.fallbacks.append,
        )

    def add_container(
        self, name: str, *, limit_bytes: int = 64 << 20, quota: str = "200000 100000"
    ) -> Container:
        directory = f"sys/fs/cgroup/{name}"
        write_tree(
            self.root,
            {
                f"{directory}/memory.max": f"{limit_bytes}\n",
                f"{directory}/memory.current": "1048576\n",
                f"{directory}/memory.stat": "anon 4096\nfile 8192\n",
                f"{directory}/cpu.max": f"{quota}\n",
                f"{directory}/cpu.stat": "usage_usec 0\nuser_usec 0\nsystem_usec 0\n",
                f"{directory}/cpuset.cpus.effective": "0-3\n",
                f"{directory}/cgroup.events": "populated 1\n",
                f"{directory}/cgroup.procs": "",
                f"{directory}/cgroup.threads": "",
            },
        )
        container = container_of_paths({"": CgroupPath(f"/{name}")}, id_=name)
        assert container is not None
        return container

    def set_tasks(self, name: str, *pids: int) -> None:
        for file in ("cgroup.procs", "cgroup.threads"):
            (self.cgroups / name / file).write_text("".join(f"{pid}\n" for pid in pids))

    def remove_container(self, name: str) -> None:
        shutil.rmtree(self.cgroups / name)

    def remake_container(self, name: str, *, limit_bytes: int) -> None:
        """Another cgroup at the same path: its inode is another one."""
        self.add_container(f"{name}.new", limit_bytes=limit_bytes)
        self.remove_container(name)
        (self.cgroups / f"{name}.new").rename(self.cgroups / name)
