"""A supervisor that is killed, alone, with others or with everything, and planned ends."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from tests.faults.attached import Place, everywhere
from tests.faults.figures import figure
from tests.faults.readers import crowd
from tests.faults.scale import scaled
from tests.faults.service import Service, service
from tests.integration.daemons import alive, is_mounted
from tests.integration.waiting import eventually, slowness

KILLS = 50
SLOWEST_S = 1.0
BACK_S = 2.0
PROCESSES = 6
"""Supervisor, keeper, two workers, the pinned tree's, and the sampler."""


def names(served: Service) -> list[str]:
    """The processes of a daemon, by their names; helpers that come and go are not counted."""
    return sorted(
        name
        for name in served.processes().values()
        if name.startswith(("procscope-w", "procscope-load", "procscope-keep"))
    )


def test_50_supervisors_killed_lose_no_read() -> None:
    """Each is followed by another at once, as a service manager does it."""
    kills = scaled(KILLS)
    chance = random.Random(kills)
    with service("--workers", "2") as served, crowd(served.mountpoint) as readers:
        before = eventually(lambda: names(served))
        began_s = time.monotonic()
        for _ in range(kills):
            served.kill_supervisor()
            served.start()
            time.sleep(chance.uniform(0.0, 0.1))
        took_s = time.monotonic() - began_s
        readers.read_some()
        eventually(lambda: names(served) == before, 3)
        tally = readers.stop()
        figure(f"supervisor: {kills} killed in {took_s:.1f} s: {tally} ({tally.slowest})")
        tally.all_right()
        assert tally.slowest_s <= SLOWEST_S * slowness()


def test_workers_go_on_without_a_supervisor() -> None:
    with service("--workers", "2") as served, crowd(served.mountpoint) as readers:
        workers = set(served.workers())
        served.kill_supervisor()
        readers.read_some(50)
        assert set(served.workers()) == workers
        served.start()
        eventually(lambda: not workers & set(served.workers()), 3)
        readers.read_some()
        readers.stop().all_right()


def test_without_a_supervisor_the_commands_say_so_at_once() -> None:
    with service("--workers", "2") as served:
        served.kill_supervisor()
        for name in ("status", "reload"):
            began_s = time.monotonic()
            done = served.command(name)
            took_s = time.monotonic() - began_s
            assert done.returncode != 0
            assert len(done.stderr.splitlines()) == 1
            assert str(served.mountpoint) in done.stderr
            assert "serve" in done.stderr
            assert took_s < 3.0 * slowness()


@pytest.mark.parametrize("victims", [1, 2])
def test_workers_that_die_with_the_supervisor_are_replaced_by_the_next(victims: int) -> None:
    """What they were answering is answered by the next daemon's."""
    rounds = scaled(10)
    with service("--workers", "2") as served, crowd(served.mountpoint) as readers:
        for _ in range(rounds):
            workers = served.workers()[:victims]
            served.kill_supervisor()
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
            served.start()
            readers.read_some()
        tally = readers.stop()
        figure(f"supervisor and {victims} of 2 workers killed {rounds} times: {tally}")
        tally.all_right()
        assert tally.slowest_s <= (SLOWEST_S + 0.5) * slowness()


def test_a_stopped_orphan_is_replaced_by_the_next_daemon() -> None:
    """The request that it holds is answered: it does not end when asked, so it is killed."""
    with (
        service("--workers", "2", "--deadline", "0.5") as served,
        crowd(served.mountpoint) as readers,
    ):
        workers = served.workers()
        served.kill_supervisor()
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        served.start()
        readers.read_some()
        assert not any(alive(pid) for pid in workers)
        tally = readers.stop()
        figure(f"supervisor killed, workers stopped: {tally}")
        tally.all_right()


def test_sigterm_with_a_keeper_leaves_workers_and_keeper_serving() -> None:
    with service("--workers", "2") as served, crowd(served.mountpoint) as readers:
        before = names(served)
        assert served.process is not None
        served.process.terminate()
        assert served.wait() == 0
        readers.read_some(20)
        assert [name for name in before if name != "procscope-load"] == [
            name for name in names(served) if name != "procscope-load"
        ]
        served.start()
        readers.read_some()
        readers.stop().all_right()


def test_the_keeper_killed_alone_is_replaced_and_then_the_supervisor() -> None:
    with service("--workers", "2") as served, crowd(served.mountpoint) as readers:
        for _ in range(scaled(5)):
            keeper = served.keeper()
            os.kill(keeper, signal.SIGKILL)
            eventually(lambda old=keeper: served.keeper() not in (0, old), 8)  # type: ignore[misc]
            other = served.keeper()
            served.kill_supervisor()
            served.start()
            assert served.keeper() == other
            told = served.status()
            assert told["keeper"] == {"pid": other}
            assert sorted(worker["pid"] for worker in told["workers"]) == sorted(served.workers())
            assert told["pid"] == served.pid
        readers.read_some()
        tally = readers.stop()
        figure(f"keeper killed, then the supervisor: {tally}")
        tally.all_right()


def test_keeper_and_supervisor_killed_together_leave_the_workers() -> None:
    """The workers have the same descriptors, and the next daemon takes them from there."""
    with service("--workers", "2") as served, crowd(served.mountpoint) as readers:
        for _ in range(scaled(5)):
            os.kill(eventually(served.keeper), signal.SIGKILL)
            served.kill_supervisor()
            served.start()
        readers.read_some()
        tally = readers.stop()
        figure(f"keeper and supervisor killed together: {tally}")
        tally.all_right()


def test_everything_killed_at_once_is_healed_within_2_s() -> None:
    """In every kind of container; not one is restarted."""
    rounds = scaled(5, least=2)
    slowest_s = 0.0
    with service("--workers", "2") as served, everywhere(served) as places:
        for _ in range(rounds):
            lives = [place.life() for place in places]
            served.kill_everything()
            assert all(place.is_dead() for place in places)
            served.start()
            ready_s = time.monotonic()
            wait_until_right(places)
            slowest_s = max(slowest_s, time.monotonic() - ready_s)
            assert [place.life() for place in places] == lives
        figure(
            f"everything killed {rounds} times: {len(places)} containers right again "
            f"{slowest_s:.2f} s after `serve` at the latest"
        )
        assert slowest_s <= BACK_S * slowness()


def test_a_healed_file_is_not_mounted_twice() -> None:
    with service("--workers", "2") as served, everywhere(served) as places:
        eventually(lambda: len(served.processes()) == PROCESSES)
        before = [place.mounts() for place in places]
        for _ in range(2):
            served.kill_everything()
            served.start()
            wait_until_right(places)
            # A file may be right while who heals is still about another one.
            eventually(lambda: len(served.processes()) == PROCESSES)
        assert [place.mounts() for place in places] == before


@pytest.mark.parametrize(
    ("way", "options"),
    [("stop", ()), ("stop", ("--no-keeper",)), ("SIGTERM", ("--no-keeper",)), ("SIGINT", ())],
)
def test_a_planned_stop_leaves_no_dead_file(way: str, options: tuple[str, ...]) -> None:
    """The containers see the host's files, and after the next start their views again."""
    with service("--workers", "2", *options) as served, everywhere(served) as places:
        if way == "stop":
            done = served.command("stop")
            assert (done.returncode, done.stderr) == (0, "")
        else:
            os.kill(served.pid, getattr(signal, way))
        assert served.wait() == 0
        assert not is_mounted(served.mountpoint)
        eventually(lambda: not served.processes(), 3)
        for place in places:
            assert place.is_hosts(), place.name
        served.start()
        wait_until_right(places)


def wait_until_right(places: list[Place]) -> None:
    """Wait until each container reads right values again."""
    for place in places:
        eventually(place.is_right, 2 * BACK_S)
