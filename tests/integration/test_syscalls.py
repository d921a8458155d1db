"""What one read costs in system calls: a ceiling for each file, so that none creeps up unseen."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.integration import agents
from tests.integration.agents import Agent, agent
from tests.integration.cgroups import container, version_of
from tests.integration.daemons import Daemon, daemon

READS = 100
MIB = 1 << 20
CEILINGS: dict[str, float] = {}

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
