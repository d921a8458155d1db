"""Many readers at once: each sees its own container and nothing of the others'."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from tests.integration import agents
from tests.integration.agents import Agent, agent
from tests.integration.cgroups import container
from tests.integration.files import CPU_FOLDER, ONLINE

MIB = 1 << 20
READS = 1000


def read_both(mount: str, times: int) -> list[tuple[bytes, bytes]]:
    """What differed, as (first line of meminfo, online), each kind once."""
    seen = set()
    for _ in range(times):
        total = agents.read(f"{mount}/proc/meminfo").split(b"\n", 1)[0]
        seen.add((total, agents.read(f"{mount}{CPU_FOLDER}/online")))
    return sorted(seen)


def test_eight_readers_in_four_containers_each_see_their_own(mount: Path) -> None:
    """A thousand reads of two files each, all at once."""
    with ExitStack() as stack:
        readers: list[tuple[Agent, bytes, bytes]] = []
        for number in range(4):
            cpu = ONLINE[number % len(ONLINE)]
            limit_mib = 100 + number
            group = stack.enter_context(container(memory_bytes=limit_mib * MIB, cpuset=str(cpu)))
            total = b"MemTotal:       %8d kB" % (limit_mib << 10)
            for _ in range(2):
                reader = stack.enter_context(agent(group))
                readers.append((reader, total, b"%d\n" % cpu))
        for reader, _, _ in readers:
            reader.send(read_both, str(mount), READS)
        for reader, total, online in readers:
            assert reader.receive() == [(total, online)]
