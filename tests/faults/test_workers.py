"""Workers that are killed or stopped lose no read."""

from __future__ import annotations

import os
import random
import signal
import time
from functools import partial

import pytest

from tests.faults.figures import figure
from tests.faults.readers import crowd
from tests.faults.scale import scaled
from tests.faults.service import Service, service
from tests.integration.daemons import alive
from tests.integration.waiting import eventually, slowness

KILLS = 500
KILLS_TAKE_S = 60.0
DEADLINE_S = 1.0


def kill_one(served: Service, chance: random.Random) -> None:
    """Kill a random worker that lives, and see it die."""
    victim = chance.choice(eventually(served.workers, 5.0))
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: not alive(victim))


def test_500_workers_killed_in_a_minute_lose_no_read() -> None:
    kills = scaled(KILLS)
    pause_s = KILLS_TAKE_S / KILLS
    chance = random.Random(kills)
    with service("--workers", "2") as served, crowd(served.mountpoint) as readers:
        began_s = time.monotonic()
        for number in range(kills):
            kill_one(served, chance)
            time.sleep(max(0.0, began_s + (number + 1) * pause_s - time.monotonic()))
        took_s = time.monotonic() - began_s
        readers.read_some()
        tally = readers.stop()
        figure(f"workers: {kills} killed in {took_s:.1f} s: {tally} ({tally.slowest})")
        tally.all_right()
        assert served.process is not None
        assert served.process.poll() is None
        # They are replaced as fast as they are killed.
        assert took_s <= kills * pause_s * 1.5 * slowness()


@pytest.mark.parametrize(("workers", "stopped"), [(1, 1), (2, 1), (2, 2)])
def test_stopped_workers_make_no_read_wait_longer_than_the_deadline(
    workers: int, stopped: int
) -> None:
    options = ("--workers", str(workers), "--deadline", str(DEADLINE_S))
    with service(*options) as served, crowd(served.mountpoint) as readers:
        for _ in range(2):
            victims = served.workers()[:stopped]
            for victim in victims:
                os.kill(victim, signal.SIGSTOP)
            for victim in victims:
                eventually(partial(has_ended, victim), 4.0)
            readers.read_some()
        tally = readers.stop()
        figure(f"workers: {stopped} of {workers} stopped twice: {tally}")
        tally.all_right()
        assert tally.slowest_s <= DEADLINE_S + 0.5 * slowness()


def has_ended(pid: int) -> bool:
    return not alive(pid)


def test_the_hosts_counters_in_stat_never_go_back() -> None:
    """Whichever worker answers: `ctxt` and `processes` pass through, and the kernel's only grow."""
    with service("--workers", "2") as served, crowd(served.mountpoint) as readers:
        readers.read_some(scaled(300, 50))
        tally = readers.stop()
        figure(f"workers: {tally}; {tally.host_steps_back} steps back of the host's counters")
        tally.all_right()
        assert tally.host_steps_back == 0
