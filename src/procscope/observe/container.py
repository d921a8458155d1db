"""What one container is and uses now, read from its cgroup, its tasks and its record."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from procscope.cgroup.cgroup import Cgroup, CgroupTasks
from procscope.cgroup.files import RUN_OUT, CgroupGone, FileBudget
from procscope.cgroup.kept import Kept
from procscope.cgroup.model import CpuShare, CpuUsage, TaskCounts
from procscope.containers.container import Container
from procscope.ids import CpuId, Pid
from procscope.observe import asleep
from procscope.observe.asleep import sleep_still
from procscope.observe.boottime import NS_PER_TICK, boottime_ns
from procscope.observe.host import HostFiles
from procscope.observe.loadblock import LoadBlock
from procscope.observe.records import LOCK_PATIENCE_NS, Record, RecordIdentity, RecordStore
from procscope.observe.tasks import count_states, find_birth_ticks, newest_pid
from procscope.views.cpu_ledger import CpuLedger
from procscope.views.cpu_time import advance
from procscope.views.cpus import CpuCount, visible_cpus
from procscope.views.loadavg import Load

_log = logging.getLogger(__name__)
_NS_PER_MS = 1_000_000
_VISIBLE_NS = 5 * _NS_PER_MS
_TASKS_NS = 200 * _NS_PER_MS
_NO_RECORD_NS = 1000 * _NS_PER_MS
_UNREADABLE_PATIENCE_NS = 500 * _NS_PER_MS
"""A write is cut for a reader beside it as long as the writer's CPU does something else."""
_MOST_KEPT_ROWS = 16
_NO_TASKS = TaskCounts(0, 0, 0)
_MAX_COUNTED_THREADS = 128
"""A container with more is not walked at a read; its counts are the sampler's."""


class Limits(NamedTuple):
    """The limits that something was made with, and how to see that it would be made again so."""

    share: CpuShare
    kept: Kept[CpuShare]
    until_ns: int
    """On the monotonic clock; the host's part in it has to be looked at then."""

    def hold(self) -> bool:
        """Tell whether nothing has changed.

        Another lifetime of the container has other files: those that are read here are gone.
        """
        return time.monotonic_ns() < self.until_ns and self.kept.unchanged() is self.share


class ContainerObserver:
    """One container's open cgroup and record. Raises CgroupGone once its cgroup is removed."""

    __slots__ = (
        "_birth_ticks",
        "_budget",
        "_contents",
        "_cpu_count",
        "_host",
        "_ledger",
        "_load",
        "_newest_pid",
        "_none_hidden_by_quota",
        "_record",
        "_record_tried_at_ns",
        "_records",
        "_share",
        "_slept_at_cpu_ns",
        "_tasks",
        "_tasks_at_ns",
        "_usage",
        "_visible",
        "_visible_at_ns",
        "_visible_of",
        "cgroup",
        "container",
        "record_name",
        "sizes",
        "unread_sweeps",
    )

    def __init__(
        self,
        container: Container,
        cgroup: Cgroup,
        host: HostFiles,
        records: RecordStore | None,
        cpu_count: CpuCount,
        budget: FileBudget | None = None,
    ) -> None:
        self.container = container
        self.cgroup = cgroup
        self.record_name = record_name(container, cgroup)
        """Of this lifetime of the container's cgroup."""
        self.sizes: dict[str, int] = {}
        """How long each view was when it was last rendered."""
        self.unread_sweeps = 0
        """How often the owner has looked after it since it was last used; the owner's."""
        self._host = host
        self._cpu_count = cpu_count
        self._records = records
        self._budget = budget
        self._record_tried_at_ns = -_NO_RECORD_NS
        self._record = self._open_record()
        try:
            self._birth_ticks = self._find_birth_ticks()
        except OSError:
            self.close()
            raise
        self._contents: dict[str, Kept[bytes]] = {}
        self._share = cgroup.kept_share()
        self._load: LoadBlock | None = None
        """What the record has said last."""
        self._usage = cgroup.kept_usage()
        self._ledger: CpuLedger | None = None
        """What this process has last written into the record, unless that is very long."""
        self._visible: tuple[CpuId, ...] = ()
        self._visible_of: tuple[CpuShare, tuple[CpuId, ...]] | None = None
        self._visible_at_ns = 0
        self._none_hidden_by_quota = False
        self._tasks = TaskCounts(0, 0, 0)
        self._newest_pid = 0
        self._tasks_at_ns = 0
        self._slept_at_cpu_ns: int | None = None

    def close(self) -> None:
        """Close every file that is kept open."""
        self.cgroup.close()
        if self._record is not None:
            self._record.close()

    def render(self, name: str, render: Callable[[HostFiles, ContainerObserver], bytes]) -> bytes:
        """Return what `render` makes of this container, and remember how long it is."""
        content = render(self._host, self)
        self.sizes[name] = len(content)
        return content

    def kept(self, name: str, make: Callable[[], bytes], beside: object) -> bytes:
        """Return the content that `make` returns, made anew where a file that it reads has changed.

        `beside` is equal where everything else that it depends on is equal.
        """
        kept = self._contents.get(name)
        if kept is None:
            kept = self._contents[name] = self.cgroup.kept()
        return kept.get(make, beside)

    def visible_cpus(self) -> tuple[CpuId, ...]:
        """Return the CPUs that the container sees, sorted, never none."""
        now_ns = time.monotonic_ns()
        if not self._visible or now_ns - self._visible_at_ns > _VISIBLE_NS:
            share = self._share.get(self.cgroup.cpu_share)
            online = self._host.online_cpus()
            if self._visible_of != (share, online):
                self._visible = visible_cpus(share, online, self._cpu_count)
                self._none_hidden_by_quota = self._visible == _without_quota(share, online)
            self._visible_of = share, online
            self._visible_at_ns = now_ns
        return self._visible

    def limits(self, until_ns: int) -> Limits | None:
        """Return the limits that `visible_cpus` has last told of; None where that is over.

        `until_ns` says when the host's files have to be looked at again.
        """
        if self._visible_of is None or self._host.online_cpus() is not self._visible_of[1]:
            return None
        return Limits(self._visible_of[0], self._share, until_ns)

    def age_ns(self) -> int:
        """Return the time since the container's first process started."""
        if self._birth_ticks is None:
            self._birth_ticks = self._find_birth_ticks()
        if self._birth_ticks is None:
            return 0
        return max(0, boottime_ns() - self._birth_ticks * NS_PER_TICK)

    def cpu_ledger(self, visible: tuple[CpuId, ...]) -> CpuLedger:
        """Return the CPU time of `visible`, handed out up to now and written down."""
        if self._record is None:
            self._record = self._open_record()
        record = self._record
        if record is None:
            return self._advance(None, visible)
        ledger = None
        for patience_ns in (LOCK_PATIENCE_NS, _UNREADABLE_PATIENCE_NS):
            if record.lock_ledger(patience_ns):
                try:
                    return self._hand_out(record, visible)
                finally:
                    record.unlock_ledger()
            ledger = CpuLedger.from_bytes(record.read_ledger() or b"")
            if ledger is not None and ledger.columns.keys() >= set(visible):
                # The holder of the lock hands out its own share of the time since then. What was
                # handed out beside it could be more than the next read tells.
                return ledger
        return self._advance(ledger, visible)

    def _hand_out(self, record: Record, visible: tuple[CpuId, ...]) -> CpuLedger:
        """Advance and write; where that cannot be, the next read does it from the same mark."""
        ledger = self._ledger
        if ledger is None or not record.ledger_is_as_written():
            ledger = CpuLedger.from_bytes(record.read_ledger() or b"")
        ledger = self._advance(ledger, visible)
        self._ledger = None
        try:
            record.write_ledger(ledger.to_bytes())
        except CgroupGone:
            raise
        except OSError as error:
            self._report(error)
        else:
            if len(ledger.columns) <= _MOST_KEPT_ROWS:
                self._ledger = ledger
        return ledger

    def _advance(self, ledger: CpuLedger | None, visible: tuple[CpuId, ...]) -> CpuLedger:
        per_cpu = self._none_hidden_by_quota
        usage = self._usage.get(self._cpu_usage_of_each if per_cpu else self._cpu_usage, per_cpu)
        return advance(ledger, usage, visible, self.age_ns(), per_cpu=per_cpu)

    def _cpu_usage(self) -> CpuUsage:
        return self.cgroup.cpu_usage()

    def _cpu_usage_of_each(self) -> CpuUsage:
        return self.cgroup.cpu_usage(of_each_cpu=True)

    def active_tasks(self) -> TaskCounts:
        """Return the threads that run and that are blocked, as `task_counts`, but not their total.

        Of a container that sleeps no thread is looked at.
        """
        if self._sleeps(self.cgroup.cpu_time_ns()):
            return _NO_TASKS
        return self.task_counts()

    def task_counts(self) -> TaskCounts:
        """Return the container's threads by state, a fraction of a second old at most.

        A container with very many threads is not walked: then the sampler's last count is told.
        """
        self._refresh_tasks()
        return self._tasks

    def newest_pid(self) -> int:
        """Return the newest process's pid as the container numbers it."""
        self._refresh_tasks()
        return self._newest_pid

    def _refresh_tasks(self) -> None:
        now_ns = time.monotonic_ns()
        if self._tasks_at_ns and now_ns - self._tasks_at_ns < _TASKS_NS:
            return
        self._tasks_at_ns = now_ns
        threads = list(self.cgroup.threads(_MAX_COUNTED_THREADS + 1))
        block = self._load_block() if len(threads) > _MAX_COUNTED_THREADS else None
        if block is not None:
            self._tasks, self._newest_pid = block.tasks, block.newest_pid
            return
        self._tasks = self._count(threads)
        self._newest_pid = newest_pid(self._host.proc, self.cgroup.processes(_MAX_COUNTED_THREADS))

    def _count(self, threads: Sequence[Pid]) -> TaskCounts:
        # What is used while they are counted has to be seen at the next read.
        cpu_time_ns = self.cgroup.cpu_time_ns()
        if self._sleeps(cpu_time_ns):
            return TaskCounts(0, 0, len(threads))
        tasks = count_states(self._host.proc, threads)
        self._slept_at_cpu_ns = None if tasks.running or tasks.blocked else cpu_time_ns
        return tasks

    def _sleeps(self, cpu_time_ns: int | None) -> bool:
        """Tell whether all tasks slept at the last count, this worker's or the sampler's."""
        if sleep_still(self._slept_at_cpu_ns, cpu_time_ns):
            return True
        if self._record is None:
            return False
        self._slept_at_cpu_ns = asleep.from_bytes(self._record.read_asleep())
        return sleep_still(self._slept_at_cpu_ns, cpu_time_ns)

    def load(self) -> Load:
        """Return the load averages; zero before the sampler's first pass, as after a boot."""
        block = self._load_block()
        return Load() if block is None else block.load

    def _load_block(self) -> LoadBlock | None:
        if self._record is None:
            return None
        if self._load is None or not self._record.load_is_known():
            self._load = LoadBlock.from_bytes(self._record.read_load())
        return self._load

    def _open_record(self) -> Record | None:
        """Open the record; None where there cannot be one, which is tried again after a while.

        Raises OSError where this process has run out of descriptors or memory.
        """
        now_ns = time.monotonic_ns()
        if self._records is None or now_ns - self._record_tried_at_ns < _NO_RECORD_NS:
            return None
        self._record_tried_at_ns = now_ns
        try:
            return self._records.open(self.record_name, self._budget)
        except OSError as error:
            if error.errno in RUN_OUT:
                raise
            # Without it nothing is remembered between reads, but every view is the container's.
            self._report(error)
            return None

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """Report what cannot be written, and go on."""
        try:
            yield
        except CgroupGone:
            raise
        except OSError as error:
            self._report(error)

    def _report(self, error: OSError) -> None:
        assert self._records is not None
        _log.warning(
            "%s cannot take the record of container %s, whose CPU times may step back: %s",
            self._records.directory,
            self.container.id,
            error.strerror,
        )

    def _find_birth_ticks(self) -> int | None:
        known = self._record.read_identity() if self._record is not None else None
        if known is not None:
            return known.birth_ticks
        ticks = find_birth_ticks(self._host.proc, self.cgroup.processes())
        if ticks is not None and self._record is not None:
            with self._reported():
                self._record.write_identity(RecordIdentity(self.container.cgroups, ticks))
        return ticks


def record_name(container: Container, cgroup: CgroupTasks) -> str:
    """Return the name of a container's record; another one once its cgroup is made again."""
    return f"{container.key}-{cgroup.identity()}"


def _without_quota(share: CpuShare, online: tuple[CpuId, ...]) -> tuple[CpuId, ...]:
    return visible_cpus(share, online, CpuCount.CPUSET)
