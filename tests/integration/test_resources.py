"""What the daemon holds for containers that have come and gone: nothing, after a while."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from procscope.views.loadavg import SAMPLE_INTERVAL_SECONDS
from tests.integration.agents import agent
from tests.integration.cgroups import ROOT, container
from tests.integration.daemons import Daemon, daemon
from tests.integration.files import meminfo, proc, stat
from tests.integration.test_mount import READABLE
from tests.integration.waiting import eventually

MIB = 1 << 20
BATCH = 50
BATCHES = 4
SLACK = 20
"""Host files that the first reader of each makes a worker open, and identities."""


def descriptors(served: Daemon) -> int:
    return max(len(os.listdir(f"/proc/{pid}/fd")) for pid in served.workers())


def private_kb(served: Daemon) -> int:
    return max(rss_anon_kb(pid) for pid in served.workers())


def rss_anon_kb(pid: int) -> int:
    """Without what the workers share: contents of open files have a bound of their own."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    raise AssertionError("a process has a resident set")


def test_two_hundred_containers_leave_no_descriptor_and_no_record() -> None:
    """Bounded by the sweep of the workers and the interval of the sampler."""
    with daemon("--workers", "2") as served, agent() as reader:
        with container() as first:
            reader.move(first)
            for name in READABLE:
                proc(served.mountpoint, name, reader)
            reader.move(ROOT)
        before, memory_before_kb = descriptors(served), private_kb(served)
        highest = 0
        for _ in range(BATCHES):
            with ExitStack() as stack:
                for number in range(BATCH):
                    group = stack.enter_context(container(memory_bytes=(10 + number) * MIB))
                    reader.move(group)
                    assert meminfo(served.mountpoint, reader)["MemTotal"] == (10 + number) << 10
                    stat(served.mountpoint, reader)
                highest = max(highest, descriptors(served))
                reader.move(ROOT)
        assert highest > before + SLACK  # else this test would prove nothing

        with container() as other, agent(other) as trigger:

            def swept() -> bool:
                """A sweep is made on the way of a request, by the worker that gets it."""
                for _ in range(8):
                    proc(served.mountpoint, "meminfo", trigger)
                return descriptors(served) <= before + SLACK

            eventually(swept, bound_s=3 * SAMPLE_INTERVAL_SECONDS)
            records = served.records_directory
            # That of the other one, and where the tests run in a cgroup, the daemon's own.
            eventually(lambda: len(os.listdir(records)) <= 2, bound_s=3 * SAMPLE_INTERVAL_SECONDS)
        assert private_kb(served) < memory_before_kb + 4096
