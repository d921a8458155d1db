"""What one read costs in system calls: a ceiling for each file, so that none creeps up unseen."""

from __future__ import annotations

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
    "proc/cpuinfo": 28,
    "proc/diskstats": 28,
    "proc/loadavg": 29,
    "proc/meminfo": 38,
    "proc/slabinfo": 28,
    "proc/stat": 40,
    "proc/swaps": 35,
    "proc/uptime": 39,
    "sys/devices/system/cpu/online": 30,
    "sys/devices/system/cpu/cpu{cpu}/topology/core_id": 35,
}
"""24 of each are FUSE's own: LOOKUP, GETATTR, OPEN, READ, READ at the end and RELEASE, of which
each is waited for, read, answered, and followed by a look for what else has come."""

CALL = re.compile(r"^\s*\d*\s*(\w+)\(", re.MULTILINE)


def trace(served: Daemon, reader: Agent, path: str, log: Path) -> float:
    """System calls of the one worker for each open, read to the end and close."""
    (worker,) = served.workers()
    reader.call(agents.read_many, path, 5)
    with subprocess.Popen(
        ["strace", "-f", "-p", str(worker), "-o", str(log)], stderr=subprocess.PIPE, text=True
    ) as tracer:
        assert tracer.stderr is not None
        assert "attached" in tracer.stderr.readline()
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
@pytest.mark.parametrize("name", CEILINGS)
def test_a_read_costs_no_more_system_calls_than(
    one_worker: Daemon, reader: Agent, tmp_path: Path, name: str
) -> None:
    path = one_worker.mountpoint / name.format(cpu=ONLINE[0])
    # A snapshot of a host file that expires during a slow round costs calls of its own.
    rounds = (trace(one_worker, reader, str(path), tmp_path / f"{n}") for n in range(ROUNDS))
    assert any(calls <= CEILINGS[name] for calls in rounds)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_files_stay_open_between_reads(one_worker: Daemon, reader: Agent, tmp_path: Path) -> None:
    """What is read for a view is opened once, not at each read."""
    log = tmp_path / "trace"
    trace(one_worker, reader, str(one_worker.mountpoint / "proc/meminfo"), log)
    assert CALL.findall(log.read_text()).count("openat") < READS / 10
