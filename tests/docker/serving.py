"""A daemon that serves at one of the two mountpoints people use."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.levels import unescape

START_S = 10.0
STOP_S = 5.0
STEP_S = 0.02
RUN_DIRECTORY = Path("/run/procscope")

PROCSCOPE = (sys.executable, "-m", "procscope")
ARTICLE_FILES = ("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime")


def article_options(mountpoint: str) -> tuple[str, ...]:
    """The six options of the walk-through, to the letter."""
    return tuple(
        word
        for name in ARTICLE_FILES
        for word in ("-v", f"{mountpoint}/proc/{name}:/proc/{name}:rw")
    )


def procscope(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the product, whatever comes of it."""
    return subprocess.run(
        [*PROCSCOPE, *arguments], capture_output=True, text=True, timeout=20, check=False
    )


@contextmanager
def served(mountpoint: str) -> Iterator[None]:
    """Run `procscope serve`, see it answer, and see that it ends well and unmounts."""
    there = Path(mountpoint).exists()
    if there and (os.path.ismount(mountpoint) or os.listdir(mountpoint)):
        raise AssertionError(f"{mountpoint} is in use on this machine; stop what serves it first")
    had_run_directory = RUN_DIRECTORY.exists()
    daemon = subprocess.Popen([*PROCSCOPE, "serve", mountpoint], stderr=subprocess.PIPE, text=True)
    try:
        _wait_until_mounted(daemon, mountpoint)
        yield
    finally:
        daemon.send_signal(signal.SIGINT)
        _, said = daemon.communicate(timeout=STOP_S)
        if not there:
            Path(mountpoint).rmdir()
        if not had_run_directory:
            _remove_run_directory()
    if daemon.returncode != 0 or "Traceback" in said:
        raise AssertionError(f"the daemon ended with {daemon.returncode} and said:\n{said}")
    # A test that walks into the pinned tree from the host is told so.
    own = f"{Path('/proc/self/comm').read_text().strip()!r}, in no container, was led"
    lines = [line for line in said.splitlines() if own not in line]
    troubles = [line for line in lines if " WARNING " in line or " ERROR " in line]
    if troubles:
        raise AssertionError("the daemon was not well:\n" + "\n".join(troubles))


def _wait_until_mounted(daemon: subprocess.Popen[str], mountpoint: str) -> None:
    deadline_s = time.monotonic() + START_S
    while not _is_mounted(mountpoint):
        if daemon.poll() is not None or time.monotonic() > deadline_s:
            raise AssertionError(f"the daemon does not serve {mountpoint}")
        time.sleep(STEP_S)
    if not Path(mountpoint, "proc/uptime").read_text():
        raise AssertionError(f"{mountpoint}/proc/uptime is empty")


def _is_mounted(mountpoint: str) -> bool:
    lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    return any(unescape(line.split()[4]) == mountpoint for line in lines)


def _remove_run_directory() -> None:
    shutil.rmtree(RUN_DIRECTORY)
