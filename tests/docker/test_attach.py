"""`procscope attach` on running containers: one program inside, no restart, and back again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.conftest import STATIC, Run
from tests.docker.containers import Container
from tests.docker.readings import cpu_list, meminfo, stat_cpus
from tests.docker.serving import procscope as call
from tests.integration.daemons import Daemon, daemon

LIMIT_KB = 128 * 1024
PRESSURE = ("cpu", "io", "memory")
HAS_PRESSURE = Path("/proc/pressure/cpu").exists()


@pytest.fixture(scope="module")
def serving() -> Iterator[Daemon]:
    """A daemon at a place of its own."""
    with daemon() as one:
        yield one


class Procscope:
    """The commands, told where the daemon serves."""

    def __init__(self, serving: Daemon) -> None:
        self.mountpoint = str(serving.mountpoint)

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return call(*arguments, "--mountpoint", self.mountpoint)

    def attach(self, container: Container) -> list[str]:
        """Attach everything, and return what was said of each file."""
        done = self("attach", "--container", container.id[:12])
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    def volumes(self) -> list[str]:
        """What `procscope docker-args` prints."""
        return self("docker-args").stdout.split()


@pytest.fixture
def procscope(serving: Daemon) -> Procscope:
    return Procscope(serving)


@pytest.fixture
def static(run: Run, procscope: Procscope) -> Container:
    """A container of an image with one static binary, started without any view."""
    del procscope
    return run(
        *("-m", "128m", "--cpus", "1", "--read-only"),
        image=STATIC,
        command=("/busybox", "sleep", "infinity"),
    )


def read(container: Container, path: str) -> str:
    return container.run("/busybox", "cat", path)


def views(container: Container) -> list[str]:
    return [
        line
        for line in read(container, "/proc/self/mountinfo").splitlines()
        if " - fuse.procscope " in line
    ]


def test_a_container_of_one_static_binary_gets_its_views_and_loses_them_again(
    static: Container, procscope: Procscope
) -> None:
    before = read(static, "/proc/self/mountinfo")
    started = static.inspect("{{.State.StartedAt}} {{.State.Pid}}")
    assert meminfo(read(static, "/proc/meminfo"))["MemTotal"] > LIMIT_KB
    said = procscope.attach(static)
    assert len(said) == len(views(static))
    assert meminfo(read(static, "/proc/meminfo"))["MemTotal"] == LIMIT_KB
    assert len(stat_cpus(read(static, "/proc/stat"))) == 1
    assert len(cpu_list(read(static, "/sys/devices/system/cpu/online"))) == 1
    done = procscope("detach", "--container", static.id)
    assert done.returncode == 0, done.stderr
    assert read(static, "/proc/self/mountinfo") == before
    assert meminfo(read(static, "/proc/meminfo"))["MemTotal"] > LIMIT_KB
    assert len(cpu_list(read(static, "/sys/devices/system/cpu/online"))) == os.cpu_count()
    assert static.inspect("{{.State.StartedAt}} {{.State.Pid}}") == started


def test_all_are_attached_at_once_and_a_second_time_changes_nothing(
    static: Container, run: Run, procscope: Procscope
) -> None:
    other = run("-m", "256m", "--pid", "host")
    for word in (" attached", " already attached"):
        done = procscope("attach", "--all")
        assert (done.returncode, done.stderr) == (0, "")
        for container in (static, other):
            assert f"{container.id[:12]}: /proc/meminfo{word}" in done.stdout.splitlines()
    assert meminfo(read(static, "/proc/meminfo"))["MemTotal"] == LIMIT_KB
    assert meminfo(other.read("/proc/meminfo"))["MemTotal"] == 2 * LIMIT_KB
    assert procscope("detach", "--all").returncode == 0
    assert views(static) == []


@pytest.mark.skipif(not HAS_PRESSURE, reason="this kernel has no PSI")
def test_files_that_runc_refuses_are_added(run: Run, procscope: Procscope) -> None:
    container = run("-m", "128m", *procscope.volumes())
    with_options = container.shell("grep -c ' - fuse.procscope ' /proc/self/mountinfo").strip()
    said = procscope.attach(container)
    for name in PRESSURE:
        assert f"{container.id[:12]}: /proc/pressure/{name} attached" in said
        assert container.shell(f"grep -c '/proc/pressure/{name} .*procscope' /proc/self/mountinfo")
    assert f"{container.id[:12]}: /proc/meminfo already attached" in said
    assert sum("already attached" in line for line in said) == int(with_options)


def test_what_a_volume_has_covered_is_left_alone(
    run: Run, procscope: Procscope, tmp_path: Path
) -> None:
    (tmp_path / "fake").write_text("fake\n")
    container = run("-m", "128m", "-v", f"{tmp_path}/fake:/proc/uptime:ro")
    said = procscope.attach(container)
    assert any("/proc/uptime left alone: the container has a mount" in line for line in said)
    assert container.read("/proc/uptime") == "fake\n"
    assert meminfo(container.read("/proc/meminfo"))["MemTotal"] == LIMIT_KB


def test_a_container_that_does_not_run_is_told_so(run: Run, procscope: Procscope) -> None:
    container = run("-m", "128m")
    container.engine.docker("kill", container.id)
    done = procscope("attach", "--container", container.id)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert container.id in done.stderr
