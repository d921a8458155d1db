"""Keepers of other releases: they outlive upgrades of the daemon, and downgrades."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.figures import figure
from tests.faults.readers import crowd
from tests.faults.releases import Installation
from tests.faults.scale import scaled
from tests.faults.service import Service, service
from tests.integration.daemons import folder
from tests.integration.waiting import eventually

HERE = "1.0.1"
OTHER = "other"


def make_older(keeper: Path) -> None:
    """With the number of an earlier protocol."""
    replace(keeper, "PROTOCOL = 2", "PROTOCOL = 0")


def make_newer(keeper: Path) -> None:
    """With more in each reply than this release knows of."""
    replace(keeper, "PROTOCOL = 2", "PROTOCOL = 7")
    replace(keeper, '("ok", ""),', '("ok", ""), ("mood", "content"), ("names_held", "4"),')


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1, f"{file.name} is not as this test expects it: {old}"
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize("change", [make_older, make_newer])
def test_a_keeper_of_another_release_serves_this_one(change: Callable[[Path], None]) -> None:
    with folder() as place:
        releases = Installation(place)
        releases.add(HERE)
        change(releases.add(OTHER) / "daemon/keeper.py")
        releases.install(OTHER)
        with (
            service("--workers", "2", sources=releases.path) as served,
            crowd(served.mountpoint) as readers,
        ):
            keeper = eventually(served.keeper)
            releases.install(HERE)
            for _ in range(scaled(5)):
                served.kill_supervisor()
                served.start()
                assert served.keeper() == keeper
                assert served.status()["version"] == HERE
            done = served.command("reload")
            assert (done.returncode, done.stderr) == (0, "")
            readers.read_some()
            assert served.keeper() == keeper
            tally = readers.stop()
            figure(f"keeper as {change.__name__} leaves it: {tally}")
            tally.all_right()
            stop(served)


def stop(served: Service) -> None:
    """A planned stop ends that keeper too."""
    done = served.command("stop")
    assert (done.returncode, done.stderr) == (0, "")
    eventually(lambda: not served.processes())
