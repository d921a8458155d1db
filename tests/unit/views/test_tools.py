"""The views, read by the tools that people use, from a folder that stands in for /proc and /sys."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from procscope.cgroup.model import IoCounters, MemoryStat, Missing, SwapV2
from procscope.ids import CpuId
from procscope.views import cpu_sysfs, cpuinfo, diskstats, meminfo, stat, swaps, uptime
from procscope.views.cpu_time import advance
from procscope.views.swap import swap_space
from tests.unit.views.recorded import DATA, MIB, SECOND_NS, cpus, memory, read, usage

HOSTS = ["5.10-x86_64", "6.1-x86_64", "6.12-x86_64", "6.18-x86_64"]
"""Each has the disk vda, number 254:0."""
AGE_NS = 50 * SECOND_NS


def write_container(folder: Path, host: str, shown: tuple[CpuId, ...]) -> None:
    """256 MiB of which 100 are used, 64 MiB of swap; one CPU busy for 20 s and throttled for 5."""
    used = MemoryStat(anon_bytes=60 * MIB, file_bytes=30 * MIB, inactive_file_bytes=20 * MIB)
    limit = memory(256 * MIB, 100 * MIB, used, SwapV2(64 * MIB, 16 * MIB))
    host_memory = meminfo.parse(read(host, "meminfo"))
    ledger = advance(None, usage(20 * SECOND_NS, 0, 5 * SECOND_NS), shown, AGE_NS, per_cpu=False)
    io = IoCounters(read_bytes=64 * MIB, write_bytes=MIB, reads=100, writes=10)
    space = swap_space(limit.swap, host_memory.swap_total_bytes)
    views = {
        "meminfo": meminfo.render(host_memory, limit, Missing.ABSENT, 50),
        "swaps": swaps.render(read(host, "swaps"), space),
        "stat": stat.render(read(host, "stat"), ledger, shown, 2, 1),
        "uptime": uptime.render(AGE_NS, ledger, shown),
        "cpuinfo": cpuinfo.render(read(host, "cpuinfo"), shown),
        "diskstats": diskstats.render(read(host, "diskstats"), {(254, 0): io}),
        "vmstat": b"pswpin 0\npswpout 0\n",
    }
    for name, content in views.items():
        (folder / name).write_bytes(content)


@pytest.fixture(params=HOSTS)
def host(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def container(host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """psutil reads the container's files; what is returned is the name of the host."""
    write_container(tmp_path, host, cpus(0, 1))
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path), raising=False)
    return host


@pytest.mark.usefixtures("container")
def test_psutil_memory() -> None:
    found = psutil.virtual_memory()
    assert found.total == 256 * MIB
    assert found.free == 156 * MIB
    assert found.available == 176 * MIB
    assert found.cached == 30 * MIB


def test_psutil_swap(container: str) -> None:
    found = psutil.swap_memory()
    if meminfo.parse(read(container, "meminfo")).swap_total_bytes:
        assert (found.total, found.used) == (64 * MIB, 16 * MIB)
    else:
        assert (found.total, found.used) == (0, 0)


@pytest.mark.usefixtures("container")
def test_psutil_cpu_times() -> None:
    total = psutil.cpu_times()
    assert (total.user, total.steal, total.idle) == (20, 5, 75)
    assert sum(total[:8]) == 2 * 50
    each = psutil.cpu_times(percpu=True)
    assert len(each) == 2
    assert [cpu.user for cpu in each] == [10, 10]


def test_psutil_boot_time_is_the_hosts(container: str) -> None:
    lines = dict(line.split()[:2] for line in read(container, "stat").splitlines())
    assert psutil.boot_time() == float(lines[b"btime"])


@pytest.mark.usefixtures("container")
def test_psutil_disk_io() -> None:
    disks = psutil.disk_io_counters(perdisk=True, nowrap=False)
    assert list(disks) == ["vda"]
    assert (disks["vda"].read_bytes, disks["vda"].write_bytes) == (64 * MIB, MIB)
    assert (disks["vda"].read_count, disks["vda"].write_count) == (100, 10)


@pytest.mark.usefixtures("container")
def test_psutil_cpu_count_from_cpuinfo_where_sysconf_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(name: str) -> int:
        raise ValueError(name)

    monkeypatch.setattr("os.sysconf", unknown)
    assert psutil.cpu_count() == 2


def test_a_container_as_large_as_the_host_reads_the_same(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no limit the tools find the same machine: sizes, CPUs, boot time, swap space."""

    def facts(folder: Path) -> dict[str, object]:
        monkeypatch.setattr(psutil, "PROCFS_PATH", str(folder), raising=False)
        return {
            "memory": psutil.virtual_memory().total,
            "swap": psutil.swap_memory().total,
            "cpus": len(psutil.cpu_times(percpu=True)),
            "columns": [len(row) for row in psutil.cpu_times(percpu=True)],
            "boot": psutil.boot_time(),
            "disks": set(psutil.disk_io_counters(perdisk=True, nowrap=False)) & {"vda"},
        }

    real, seen = tmp_path / "real", tmp_path / "seen"
    real.mkdir()
    seen.mkdir()
    for name in ("meminfo", "swaps", "stat", "uptime", "cpuinfo", "diskstats"):
        (real / name).write_bytes(read(host, name))
    (real / "vmstat").write_bytes(b"pswpin 0\npswpout 0\n")
    every = cpus(*range(read(host, "cpuinfo").count(b"processor\t")))
    write_container(seen, host, every)
    (seen / "meminfo").write_bytes(
        meminfo.render(
            meminfo.parse(read(host, "meminfo")), memory(Missing.UNLIMITED), Missing.ABSENT, 50
        )
    )
    assert facts(seen) == facts(real)
    assert (seen / "cpuinfo").read_bytes() == (real / "cpuinfo").read_bytes()


def lscpu(root: Path) -> Callable[[str], str]:
    answer = subprocess.run(
        ["lscpu", "--json", "--sysroot", str(root)], check=True, capture_output=True, timeout=30
    )
    flat = {}
    pending = json.loads(answer.stdout)["lscpu"]
    while pending:
        item = pending.pop()
        flat[item["field"]] = item["data"]
        pending += item.get("children", [])
    return lambda field: str(flat[field])


@pytest.mark.parametrize(
    ("shown", "listed", "sockets", "cores"),
    [
        (cpus(0, 1, 2, 3), "0-3", "2", "2"),
        (cpus(0, 1), "0,1", "1", "2"),
        (cpus(2, 3), "2,3", "1", "2"),
        (cpus(3), "3", "1", "1"),
    ],
)
def test_lscpu_finds_the_visible_cpus(
    tmp_path: Path,
    shown: tuple[CpuId, ...],
    listed: str,
    sockets: str,
    cores: str,
) -> None:
    """A machine of two packages with two cores each."""
    name = "6.1-x86_64"
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_bytes(cpuinfo.render(read(name, "cpuinfo"), shown))
    source, target = DATA / name / "sys", tmp_path / "sys/devices/system/cpu"
    for file in (path for path in source.rglob("*") if path.is_file()):
        relative = str(file.relative_to(source))
        if not cpu_sysfs.is_hidden(relative, shown):
            (target / relative).parent.mkdir(parents=True, exist_ok=True)
            (target / relative).write_bytes(cpu_sysfs.render(relative, file.read_bytes(), shown))
    answer = lscpu(tmp_path)
    assert answer("CPU(s):") == str(len(shown))
    assert answer("On-line CPU(s) list:") == listed
    assert answer("Socket(s):") == sockets
    assert answer("Core(s) per socket:") == cores
