"""The sampler: every five seconds, the tasks of each known container, and its load averages.

One process for the node. It finds the containers by their records, and removes the records of
those whose cgroup has gone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from procscope.cgroup.cgroup import CgroupTasks
from procscope.cgroup.files import CgroupGone, FileBudget
from procscope.cgroup.hierarchy import Hierarchies
from procscope.cgroup.io_accounting import IoAccounting
from procscope.cgroup.model import TaskCounts
from procscope.containers.container import container_of_paths
from procscope.daemon.config import ServeConfig
from procscope.daemon.leases import HeldOpen
from procscope.linux import syscalls
from procscope.observe import asleep
from procscope.observe.boottime import NS_PER_SECOND, boottime_ns
from procscope.observe.container import record_name
from procscope.observe.loadblock import LoadBlock
from procscope.observe.records import Record, RecordStore
from procscope.observe.tasks import count_states, newest_pid
from procscope.views.loadavg import SAMPLE_INTERVAL_SECONDS, Load, decay_n

_log = logging.getLogger(__name__)
_INTERVAL_NS = SAMPLE_INTERVAL_SECONDS * NS_PER_SECOND
_MAX_PROCESSES_FOR_NEWEST = 4096
_STARTING_NS = 2 * _INTERVAL_NS
"""A record is made before it says whose it is; one that never does is removed after this."""


_COUNTED_AT_LEAST_EVERY = 12
"""Samples. Tasks can be moved into a cgroup, and out of it, and never run there."""


class _Tracked:
    """One container of the sampler."""

    __slots__ = (
        "_cpu_time_mark",
        "_is_quiet",
        "_samples_not_counted",
        "_threads_mark",
        "cgroup",
        "counts",
        "load",
        "newest_pid",
        "record",
        "sampled_at_ns",
    )

    def __init__(self, cgroup: CgroupTasks, record: Record, block: LoadBlock | None) -> None:
        self.cgroup = cgroup
        self.record = record
        self.load = Load() if block is None else block.load
        # Who had no load has had none since, or there would be another block.
        self.sampled_at_ns = 0 if block is None or block.load == Load() else block.sampled_at_ns
        self.counts: TaskCounts | None = None
        self.newest_pid = 0
        self._is_quiet = False
        """Whether no task was active at the last count, and the load is 0."""
        self._cpu_time_mark: int | None = None
        self._threads_mark: int | None = None
        """Another one for other threads than at the last count."""
        self._samples_not_counted = 0

    def sample(self, proc: str, now_ns: int) -> None:
        """Count the tasks if they can be other than before, and have the load decay.

        Raises CgroupGone, also where that is seen only when the tasks are counted. A container
        that sleeps and has no load costs one read, and nothing is written.
        """
        has_to_be_counted = self._has_to_be_counted()
        if self._is_quiet and not has_to_be_counted:
            self.sampled_at_ns = now_ns
            return
        if has_to_be_counted or self.counts is None:
            self.counts = self._count(proc)
        active = self.counts.running + self.counts.blocked
        passed = max(1, (now_ns - self.sampled_at_ns + _INTERVAL_NS // 2) // _INTERVAL_NS)
        self.load = decay_n(self.load, active, passed if self.sampled_at_ns else 1)
        self.sampled_at_ns = now_ns
        self._is_quiet = not active and self.load == Load()
        block = LoadBlock(self.load, self.counts, self.newest_pid, now_ns)
        self.record.write_load(block.to_bytes())

    def _has_to_be_counted(self) -> bool:
        """Tell whether the tasks can be other than at the last count, or in another state.

        Where all of them slept, and none has used any CPU time since, they still sleep, and none
        has made another or ended. Raises CgroupGone.
        """
        before, self._cpu_time_mark = self._cpu_time_mark, self.cgroup.cpu_time_mark()
        counts = self.counts
        slept = before is not None and self._cpu_time_mark == before
        slept = slept and counts is not None and not counts.running and not counts.blocked
        self._samples_not_counted = self._samples_not_counted + 1 if slept else 0
        if self._samples_not_counted >= _COUNTED_AT_LEAST_EVERY:
            self._samples_not_counted = 0
        return not self._samples_not_counted

    def _count(self, proc: str) -> TaskCounts:
        # What is used while they are counted has to be seen by whoever reads.
        cpu_time_ns = self.cgroup.cpu_time_ns()
        threads = tuple(self.cgroup.threads())
        counts = count_states(proc, threads)
        before, self._threads_mark = self._threads_mark, hash(threads)
        if self._threads_mark != before or not self.newest_pid:
            self.newest_pid = newest_pid(proc, self.cgroup.processes(_MAX_PROCESSES_FOR_NEWEST))
        slept = not counts.running and not counts.blocked
        self.record.write_asleep(asleep.to_bytes(cpu_time_ns if slept else None))
        return counts

    def close(self) -> None:
        self.cgroup.close()
        self.record.close()


class Sampler:
    """Samples every container that has a record."""

    def __init__(
        self,
        hierarchies: Hierarchies,
        records: RecordStore,
        proc: str = "/proc",
        io_accounting: IoAccounting | None = None,
    ) -> None:
        self._hierarchies = hierarchies
        self._records = records
        self._proc = proc
        self._io_accounting = io_accounting
        self._budget = FileBudget()
        self._tracked: dict[str, _Tracked] = {}
        self._nameless: dict[str, int] = {}

    def run(self, housekeeping: Callable[[], None] = lambda: None) -> None:
        """Sample for ever, at the multiples of the interval since boot.

        `housekeeping` is called first, and after each sample.
        """
        while True:
            housekeeping()
            time.sleep((_INTERVAL_NS - boottime_ns() % _INTERVAL_NS) / NS_PER_SECOND)
            try:
                self.sample(boottime_ns())
            except OSError as error:
                _log.error("the load averages of this interval are missing: %s", error)

    def sample(self, now_ns: int) -> None:
        """Take one sample of every container, at the time `now_ns` since boot.

        Raises OSError where the state directory cannot be read.
        """
        if self._io_accounting is not None:
            self._io_accounting.switch_on()
        names = set(self._records.names())
        for name in self._tracked.keys() - names:
            self._drop(name)
        for name in self._nameless.keys() - names:
            del self._nameless[name]
        for name in names:
            try:
                tracked = self._tracked.get(name) or self._track(name, now_ns)
                if tracked is not None:
                    tracked.sample(self._proc, now_ns)
            except CgroupGone:
                self._drop(name)
                self._remove(name)
            except OSError as error:
                _log.warning("%s is not sampled this time: %s", name, error)

    def _remove(self, name: str) -> None:
        try:
            self._records.remove(name)
        except OSError as error:
            directory = self._records.directory
            _log.warning("%s keeps a record of what has gone, %s: %s", directory, name, error)

    def _track(self, name: str, now_ns: int) -> _Tracked | None:
        """Open a container's cgroup by its record; None where the record is not complete yet."""
        record = self._records.open_existing(name, self._budget)
        if record is None:
            return None
        identity = record.read_identity()
        container = container_of_paths(identity.cgroups) if identity else None
        if container is None:
            record.close()
            if now_ns - self._nameless.setdefault(name, now_ns) > _STARTING_NS:
                del self._nameless[name]
                self._remove(name)
            return None
        self._nameless.pop(name, None)
        try:
            cgroup = CgroupTasks(self._hierarchies, container.cgroups, self._budget)
            if record_name(container, cgroup) != name:
                cgroup.close()
                raise CgroupGone(container.id)
        except CgroupGone:
            record.close()
            raise
        block = LoadBlock.from_bytes(record.read_load())
        tracked = self._tracked[name] = _Tracked(cgroup, record, block)
        return tracked

    def _drop(self, name: str) -> None:
        tracked = self._tracked.pop(name, None)
        if tracked is not None:
            tracked.close()


def run_sampler(config: ServeConfig, hierarchies: Hierarchies) -> None:
    """Be the sampler of a daemon."""
    syscalls.set_name("procscope-load")
    io_accounting = IoAccounting(hierarchies, config.sys)
    io_accounting.switch_on()
    records = RecordStore(config.records_directory)
    held = HeldOpen(config.mountpoint)
    Sampler(hierarchies, records, config.proc, io_accounting).run(held.refresh)
