"""What one read costs in system calls: a ceiling for each file, so that none creeps up unseen."""

from __future__ import annotations

import math
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import agents
from tests.integration.agents import Agent, agent
from tests.integration.cgroups import container
from tests.integration.daemons import Daemon, daemon
from tests.integration.files import ONLINE

READS = 100
ROUNDS = 4
MIB = 1 << 20
CEILINGS = {
    "proc/cpuinfo": (24, 29),
    "proc/diskstats": (24, 27),
    "proc/loadavg": (25, 30),
    "proc/meminfo": (34, 39),
    "proc/slabinfo": (24, 26),
    "proc/stat": (36, 42),
    "proc/swaps": (31, 37),
    "proc/uptime": (35, 38),
    "sys/devices/system/cpu/online": (26, 27),
    "sys/devices/system/cpu/cpu{cpu}/topology/core_id": (31, 32),
}
"""Of a read right after another one, and of one after a pause.

20 of each are FUSE's own: LOOKUP, OPEN, READ, READ at the end and RELEASE, of which
each is waited for, read, answered, and followed by a look for what else has come."""
PAUSE_S = 0.015
"""After it no rendering is recent, nor any text of the host; limits of cgroups may be."""

CALL = re.compile(r"^\s*\d*\s*(\w+)\(", re.MULTILINE)


def trace(served: Daemon, reader: Agent, path: str, log: Path, pause_s: float = 0) -> float:
    """System calls of the one worker for each open, read to the end and close.

    Each read comes after a pause, if one is given.
    """
    (worker,) = served.workers()
    reader.call(agents.read_many, path, 5)
    with subprocess.Popen(
        ["strace", "-f", "-p", str(worker), "-o", str(log)], stderr=subprocess.PIPE, text=True
    ) as tracer:
        assert tracer.stderr is not None
        assert "attached" in tracer.stderr.readline()
        if pause_s:
            reader.call(agents.read_rarely, path, READS, pause_s)
        else:
            reader.call(agents.read_many, path, READS)
        tracer.send_signal(signal.SIGINT)
        tracer.wait()
    return len(CALL.findall(log.read_text())) / READS


@pytest.fixture(scope="module")
def one_worker() -> Iterator[Daemon]:
    with daemon("--workers", "1") as served:
        yield served


@pytest.fixture(scope="module")
def reader() -> Iterator[Agent]:
    with container(memory_bytes=100 * MIB, cpus=1) as group, agent(group) as one:
        yield one


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("pause_s", [0, PAUSE_S], ids=["hot", "cold"])
@pytest.mark.parametrize("name", CEILINGS)
def test_a_read_costs_no_more_system_calls_than(
    one_worker: Daemon, reader: Agent, tmp_path: Path, name: str, pause_s: float
) -> None:
    path = one_worker.mountpoint / name.format(cpu=ONLINE[0])
    hot, cold = CEILINGS[name]
    # A snapshot of a host file that expires during a slow round costs calls of its own.
    rounds = (
        trace(one_worker, reader, str(path), tmp_path / f"{n}", pause_s) for n in range(ROUNDS)
    )
    least = math.inf
    for calls in rounds:
        least = min(least, calls)
        if least <= (cold if pause_s else hot):
            return
    pytest.fail(f"{least} system calls")


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_files_stay_open_between_reads(one_worker: Daemon, reader: Agent, tmp_path: Path) -> None:
    """What is read for a view is opened once, not at each read."""
    log = tmp_path / "trace"
    trace(one_worker, reader, str(one_worker.mountpoint / "proc/meminfo"), log)
    assert CALL.findall(log.read_text()).count("openat") < READS / 10
