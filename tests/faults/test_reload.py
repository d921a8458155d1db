"""`procscope reload`: other code serves, and nobody who reads can tell when."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.checks import FILES
from tests.faults.figures import figure
from tests.faults.readers import MIB, crowd
from tests.faults.releases import Installation
from tests.faults.scale import scaled
from tests.faults.service import Service, service
from tests.integration.agents import Agent, agent
from tests.integration.cgroups import container
from tests.integration.daemons import folder
from tests.integration.waiting import eventually, slowness

RELOADS = 50
SLOWEST_S = 1.0
WHOLE = 1 << 16
PIECE = 100
VERSIONS = ("1.0.1", "1.0.2")

BROKEN = {
    "syntax error": ("daemon/supervisor.py", "this is no Python\n"),
    "fails at import": ("daemon/worker.py", "raise RuntimeError('a broken release')\n"),
    "a module is missing": ("daemon/config.py", "import procscope.not_there\n"),
    "ends at once": ("cli/serve.py", "raise SystemExit(1)\n"),
    "dies of a signal": ("daemon/worker.py", "import os\nos.kill(os.getpid(), 11)\n"),
}


@contextmanager
def installed(*options: str) -> Iterator[tuple[Service, Installation]]:
    """A daemon of the first of two releases."""
    with folder() as place:
        releases = Installation(place)
        for version in VERSIONS:
            releases.add(version)
        releases.install(VERSIONS[0])
        with service("--workers", "2", *options, sources=releases.path) as served:
            yield served, releases


def reload_to(served: Service, releases: Installation, version: str) -> None:
    """Install a release and have it serve."""
    releases.install(version)
    done = served.command("reload")
    assert (done.returncode, done.stderr) == (0, ""), served.log()[-2000:]
    assert served.status()["version"] == version


def test_50_reloads_lose_no_read_and_no_open_file() -> None:
    reloads = scaled(RELOADS)
    with (
        installed() as (served, releases),
        crowd(served.mountpoint) as readers,
        container(memory_bytes=50 * MIB) as group,
        agent(group) as holder,
    ):
        pid, workers = served.pid, len(served.workers())
        opened = holder.call(open_all, str(served.mountpoint))
        contents = holder.call(read_whole, opened)
        began_s = time.monotonic()
        for number in range(reloads):
            reload_to(served, releases, VERSIONS[(number + 1) % 2])
            assert served.pid == pid
            assert holder.call(read_rest_in_pieces, opened) == [text[1:] for text in contents]
        took_s = time.monotonic() - began_s
        readers.read_some()
        eventually(lambda: len(served.workers()) == workers, 3)
        tally = readers.stop()
        figure(f"{reloads} reloads in {took_s:.1f} s: {tally} ({tally.slowest})")
        tally.all_right()
        assert tally.slowest_s <= SLOWEST_S * slowness()


def open_all(mount: str) -> list[int]:
    return [os.open(f"{mount}/proc/{name}", os.O_RDONLY) for name in FILES]


def read_whole(descriptors: list[int]) -> list[bytes]:
    return [os.pread(descriptor, WHOLE, 0) for descriptor in descriptors]


def read_rest_in_pieces(descriptors: list[int]) -> list[bytes]:
    """All but the first byte: from there on, the file would be rendered anew, as procfs does."""
    texts = []
    for descriptor in descriptors:
        text = b""
        while piece := os.pread(descriptor, PIECE, 1 + len(text)):
            text += piece
        texts.append(text)
    return texts


def test_reloads_by_signal_and_kills_of_what_has_been_reloaded() -> None:
    """SIGHUP reloads too; and what took over may crash as any other."""
    with installed() as (served, releases), crowd(served.mountpoint) as readers:
        for number in range(scaled(6)):
            version = VERSIONS[(number + 1) % 2]
            releases.install(version)
            os.kill(served.pid, signal.SIGHUP)
            eventually(lambda new=version: version_of(served) == new, 8)  # type: ignore[misc]
            served.kill_supervisor()
            served.start()
            assert served.status()["version"] == version
        tally = readers.stop()
        figure(f"reloads by signal, each followed by a crash: {tally}")
        tally.all_right()


def version_of(served: Service) -> str:
    """The version that serves; empty while nobody answers, as between two versions."""
    done = served.command("status", "--json")
    return str(json.loads(done.stdout)["version"]) if done.returncode == 0 else ""


def test_workers_that_are_killed_during_a_reload_lose_no_read() -> None:
    with installed() as (served, releases), crowd(served.mountpoint) as readers:
        for number in range(scaled(6)):
            releases.install(VERSIONS[(number + 1) % 2])
            os.kill(served.pid, signal.SIGHUP)
            for _ in range(4):
                for pid in served.workers()[:1]:
                    os.kill(pid, signal.SIGKILL)
                readers.read_some()
        # The last one may still be under way.
        eventually(lambda: served.command("reload").returncode == 0, 8)
        readers.read_some()
        tally = readers.stop()
        figure(f"workers killed during reloads: {tally}")
        tally.all_right()


def test_reloads_leave_nothing_behind() -> None:
    """No descriptor, no process, no zombie."""
    with installed() as (served, releases), agent() as reader:
        for number in range(4):
            reload_to(served, releases, VERSIONS[(number + 1) % 2])
        before = belongings(served, reader)
        for number in range(4):
            reload_to(served, releases, VERSIONS[(number + 1) % 2])
        eventually(lambda: belongings(served, reader) == before, 3)


def belongings(served: Service, reader: Agent) -> tuple[list[str], int, int]:
    """The processes by name, the supervisor's descriptors, and its children."""
    reader.call(read_one, str(served.mountpoint))
    names = sorted(served.processes().values())
    children = Path(f"/proc/{served.pid}/task/{served.pid}/children").read_text().split()
    return names, len(os.listdir(f"/proc/{served.pid}/fd")), len(children)


def read_one(mount: str) -> None:
    Path(mount, "proc/uptime").read_bytes()


@pytest.mark.parametrize("what", BROKEN)
def test_a_release_that_does_not_come_up_leaves_the_old_one_serving(what: str) -> None:
    name, text = BROKEN[what]
    with installed() as (served, releases), crowd(served.mountpoint) as readers:
        package = releases.add("broken")
        (package / name).write_text(text)
        workers = served.workers()
        releases.install("broken")
        # The command itself is of the old release: the new one may not even parse.
        releases_back = VERSIONS[0]
        done = reload_with(served, releases, releases_back)
        assert done[0] != 0
        assert len(done[1].splitlines()) == 1, done[1]
        assert "Traceback" not in done[1]
        assert served.status()["version"] == VERSIONS[0]
        assert served.workers() == workers
        readers.read_some()
        reload_to(served, releases, VERSIONS[1])
        tally = readers.stop()
        figure(f"a release with {what}: {done[1].strip()!r}: {tally}")
        tally.all_right()


def reload_with(served: Service, releases: Installation, version: str) -> tuple[int, str]:
    """Run the command `reload` of one release while another is installed."""
    environment = served.environment
    sources = environment["PYTHONPATH"]
    environment["PYTHONPATH"] = str(releases.path.with_name(version))
    try:
        done = served.command("reload")
    finally:
        environment["PYTHONPATH"] = sources
        releases.install(version)
    return done.returncode, done.stderr


@pytest.mark.timeout(120)
def test_a_release_that_hangs_leaves_the_old_one_serving() -> None:
    with installed() as (served, releases), crowd(served.mountpoint) as readers:
        package = releases.add("broken")
        (package / "daemon/worker.py").write_text("import signal\nsignal.pause()\n")
        releases.install("broken")
        began_s = time.monotonic()
        status, said = reload_with(served, releases, VERSIONS[0])
        took_s = time.monotonic() - began_s
        assert status != 0
        assert len(said.splitlines()) == 1, said
        assert served.status()["version"] == VERSIONS[0]
        readers.read_some()
        tally = readers.stop()
        figure(f"a release that hangs is given up after {took_s:.1f} s: {tally}")
        tally.all_right()
