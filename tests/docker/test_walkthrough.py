"""The walk-through that people know from lxcfs, from the first command to the last.

lxcfs /var/lib/lxcfs &
docker run -it -m 256m -v /var/lib/lxcfs/proc/cpuinfo:/proc/cpuinfo:rw … ubuntu:16.04 /bin/bash
# free
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.docker.conftest import LXCFS
from tests.docker.engine import Engine
from tests.docker.images import tools_root

DOCKER_RUN = r"""docker run -i -m 256m \
      -v /var/lib/lxcfs/proc/cpuinfo:/proc/cpuinfo:rw \
      -v /var/lib/lxcfs/proc/diskstats:/proc/diskstats:rw \
      -v /var/lib/lxcfs/proc/meminfo:/proc/meminfo:rw \
      -v /var/lib/lxcfs/proc/stat:/proc/stat:rw \
      -v /var/lib/lxcfs/proc/swaps:/proc/swaps:rw \
      -v /var/lib/lxcfs/proc/uptime:/proc/uptime:rw \
      ubuntu:16.04 /bin/bash
"""
"""As it is written, without `-t`: the commands come from a pipe here."""


@pytest.mark.usefixtures("article")
def test_free_in_a_container_of_256_mib(engine: Engine) -> None:
    engine.import_image("ubuntu:16.04", tools_root())
    assert {"cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime"} <= {
        path.name for path in Path(LXCFS, "proc").iterdir()
    }
    before = set(engine.docker("ps", "-aq").split())
    shell = subprocess.run(
        ["sh", "-c", DOCKER_RUN],
        input="free\n",
        capture_output=True,
        text=True,
        env=engine.environment,
        timeout=60,
        check=False,
    )
    made = set(engine.docker("ps", "-aq").split()) - before
    engine.docker("rm", "-f", *made)
    assert shell.returncode == 0, shell.stderr
    print(shell.stdout)
    heading, memory, swap = (line.split() for line in shell.stdout.splitlines())
    assert heading == ["total", "used", "free", "shared", "buff/cache", "available"]
    values = dict(zip(heading, (int(number) for number in memory[1:]), strict=True))
    assert memory[0] == "Mem:"
    assert values["total"] == 262144
    assert 0 < values["used"] < 16384
    assert values["free"] + values["buff/cache"] <= 262144
    assert 262144 - 16384 < values["available"] < 262144
    assert swap[0] == "Swap:"
    host_has_swap = len(Path("/proc/swaps").read_text().splitlines()) > 1
    assert (swap[1:] == ["0", "0", "0"]) or host_has_swap
