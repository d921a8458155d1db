"""While files are held open nobody gets a write lease on them; one that is there is outlasted."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from procscope.daemon.leases import HeldOpen


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder as a mount has it, and a process that a broken lease does not end."""
    for name in ("proc/meminfo", "proc/pressure/cpu", "sys/devices/system/cpu/online"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    yield tmp_path
    signal.signal(signal.SIGIO, before)


@pytest.fixture
def held(place: Path) -> Iterator[HeldOpen]:
    one = HeldOpen(str(place))
    yield one
    one.close()


def take_lease(path: Path) -> int:
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError:
        os.close(fd)
        raise
    return fd


@pytest.mark.parametrize(
    "name", ["proc/meminfo", "proc/pressure/cpu", "sys/devices/system/cpu/online"]
)
def test_nobody_gets_a_lease_on_what_is_held(place: Path, held: HeldOpen, name: str) -> None:
    os.close(take_lease(place / name))
    held.refresh()
    with pytest.raises(BlockingIOError):
        take_lease(place / name)


def test_a_lease_that_was_there_first_is_outlasted(place: Path, held: HeldOpen) -> None:
    """As one that was taken while nobody held the files."""
    lease = take_lease(place / "proc/meminfo")
    held.refresh()
    os.close(lease)
    held.refresh()
    with pytest.raises(BlockingIOError):
        take_lease(place / "proc/meminfo")


def test_what_is_gone_is_let_go(place: Path) -> None:
    held = HeldOpen(str(place / "nowhere"))
    held.refresh()
    held.close()
