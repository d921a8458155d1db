"""Docker's containers over the death of everything: right again, and not one of them restarted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from procscope.inject.docker import volume_options
from tests.docker.containers import Container
from tests.docker.engine import Engine, running_engine
from tests.docker.images import static_root
from tests.faults.attached import start_ticks
from tests.faults.checks import host_share
from tests.faults.figures import figure
from tests.faults.scale import scaled
from tests.faults.service import Service, service
from tests.integration.waiting import eventually, slowness
from tests.levels import CannotRunError, docker_probe

STATIC = "static"
BACK_S = 2.0
WATCH = "while :; do /busybox head -n 1 /proc/meminfo; /busybox usleep 50000; done"
"""What runs in a container: it says what it sees, with the one program that is there."""
KINDS = {
    "one static binary": ("-m", "80m"),
    "read-only": ("-m", "90m", "--read-only", "--cap-drop", "ALL", "--user", "1000:1000"),
    "limited CPU": ("-m", "100m", "--cpus", "1"),
    "the host's pids": ("-m", "110m", "--pid", "host"),
}


class Static:
    """A container of the image with nothing but busybox."""

    def __init__(self, container: Container, total_kb: int) -> None:
        self._container = container
        self._total_kb = total_kb

    def life(self) -> tuple[int, int, str]:
        """Its first process, when it started, and how often the engine has restarted it."""
        pid = self._container.init_pid
        return pid, start_ticks(pid), self._container.inspect("{{.RestartCount}}")

    def shows(self) -> str:
        """The last line that its own process has printed."""
        done = self._container.engine.call("logs", "--tail", "1", self._container.id)
        return (done.stdout + done.stderr).decode()

    def is_right(self) -> bool:
        """Whether it sees its own size."""
        return self.shows().split() == ["MemTotal:", str(self._total_kb), "kB"]

    def is_dead(self) -> bool:
        """Whether it gets an error."""
        return "MemTotal" not in self.shows()

    def is_hosts(self) -> bool:
        """Whether it sees the host's size."""
        return self.shows().split() == ["MemTotal:", str(host_share().memory_kb), "kB"]

    def mounts(self) -> tuple[str, ...]:
        """What is mounted in it, each as often as it is."""
        lines = Path(f"/proc/{self._container.init_pid}/mountinfo").read_text().splitlines()
        return tuple(sorted(line.split()[4] for line in lines))


@pytest.fixture(scope="module")
def engine(_nothing_left_at_the_end: None) -> Iterator[Engine]:
    """A dockerd of our own, with the image."""
    try:
        docker_probe()
    except CannotRunError as reason:
        pytest.skip(str(reason))
    with running_engine() as engine:
        engine.import_image(STATIC, static_root())
        yield engine


@contextmanager
def containers(engine: Engine, served: Service) -> Iterator[list[Static]]:
    """One of each kind, which sees its own size."""
    views = volume_options(str(served.mountpoint))
    made = []
    try:
        found = []
        for options in KINDS.values():
            command = (STATIC, "/busybox", "sh", "-c", WATCH)
            made.append(engine.docker("run", "-d", *options, *views, *command).strip())
            found.append(Static(Container(engine, made[-1]), int(options[1][:-1]) << 10))
        for one in found:
            eventually(one.is_right, 5)
        yield found
    finally:
        if made:
            engine.docker("rm", "-f", *made)


def test_everything_killed_at_once_is_healed_within_2_s(engine: Engine) -> None:
    rounds = scaled(3, least=1)
    slowest_s = 0.0
    with service("--workers", "2") as served, containers(engine, served) as running:
        lives = [one.life() for one in running]
        mounts = [one.mounts() for one in running]
        for _ in range(rounds):
            served.kill_everything()
            for one in running:
                eventually(one.is_dead, 3)
            served.start()
            ready_s = time.monotonic()
            for one in running:
                eventually(one.is_right, 2 * BACK_S)
            slowest_s = max(slowest_s, time.monotonic() - ready_s)
        assert [one.life() for one in running] == lives
        assert [one.mounts() for one in running] == mounts
        figure(
            f"everything killed {rounds} times: {len(running)} Docker containers right again "
            f"{slowest_s:.2f} s after `serve` at the latest"
        )
        assert slowest_s <= BACK_S * slowness()


def test_a_planned_stop_leaves_the_hosts_files(engine: Engine) -> None:
    with service("--workers", "2") as served, containers(engine, served) as running:
        lives = [one.life() for one in running]
        done = served.command("stop")
        assert (done.returncode, done.stderr) == (0, "")
        for one in running:
            eventually(one.is_hosts, 3)
        served.start()
        for one in running:
            eventually(one.is_right, 2 * BACK_S)
        assert [one.life() for one in running] == lives


def test_crashes_and_reloads_are_not_seen(engine: Engine) -> None:
    """Not one line that a container prints is other than right."""
    with service("--workers", "2") as served, containers(engine, served) as running:
        for _ in range(scaled(5)):
            served.kill_supervisor()
            served.start()
            done = served.command("reload")
            assert (done.returncode, done.stderr) == (0, "")
        for one in running:
            assert one.is_right()
            printed = one._container.engine.call("logs", one._container.id)
            assert printed.stderr == b""
            assert len(set(printed.stdout.splitlines())) == 1
