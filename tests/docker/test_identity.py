"""Shared PID namespaces and cgroups below a container's: each reader gets its container's view."""

from __future__ import annotations

from tests.docker.conftest import Run
from tests.docker.containers import make_below, remove_below
from tests.docker.readings import free, meminfo

MIB = 1 << 20
NESTED_ID = "0123456789abcdef" * 4


def total_mib(meminfo_text: str) -> int:
    return meminfo(meminfo_text)["MemTotal"] // 1024


def test_a_container_that_joins_the_pid_namespace_of_another(
    run: Run, views: tuple[str, ...]
) -> None:
    pause = run("-m", "256m", *views)
    joined = run("-m", "128m", "--pid", f"container:{pause.id}", *views)
    assert total_mib(joined.read("/proc/meminfo")) == 128
    assert total_mib(pause.read("/proc/meminfo")) == 256
    # Asked in this order, the older one is older whatever time passes between the two.
    joined_s, pause_s = (float(one.read("/proc/uptime").split()[0]) for one in (joined, pause))
    assert pause_s > joined_s


def test_a_container_in_the_hosts_pid_namespace(run: Run, views: tuple[str, ...]) -> None:
    container = run("-m", "128m", "--pid", "host", *views)
    assert free(container.run("free"))["total"] == 128 * 1024
    assert float(container.read("/proc/uptime").split()[0]) < 10


def test_a_container_in_a_container(run: Run, views: tuple[str, ...]) -> None:
    """A cgroup that is named like a container, below a container's, as Docker in Docker makes."""
    container = run("-m", "256m", *views)
    cgroups = make_below(container, f"docker/{NESTED_ID}", 64 * MIB)
    try:
        assert total_mib(container.enter(cgroups, "cat", "/proc/meminfo")) == 64
        assert total_mib(container.read("/proc/meminfo")) == 256
    finally:
        remove_below(cgroups, container)


def test_systemd_in_a_container(run: Run, views: tuple[str, ...]) -> None:
    """Units are no containers: also one with a limit of its own is on its container's machine."""
    container = run("-m", "256m", *views)
    for unit in ("init.scope", "system.slice/x.service"):
        cgroups = make_below(container, unit, 64 * MIB)
        try:
            assert total_mib(container.enter(cgroups, "cat", "/proc/meminfo")) == 256, unit
        finally:
            remove_below(cgroups, container)
