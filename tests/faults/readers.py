"""Readers in containers of known size: processes that read without a pause and check every byte."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import random
import signal
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NoReturn

from procscope.linux import syscalls
from tests.faults.checks import (
    FILES,
    Checker,
    Share,
    StepBackError,
    WrongError,
    form_of_host,
    host_share,
)
from tests.integration.agents import fork
from tests.integration.cgroups import Group, container
from tests.integration.daemons import alive, folder
from tests.integration.files import ONLINE
from tests.integration.waiting import eventually

MIB = 1 << 20
NS_PER_S = 10**9
_WHOLE = 1 << 16
_CHUNKS: Mapping[str, Sequence[int]] = {
    "meminfo": (_WHOLE, 4096, 100),
    "stat": (_WHOLE, 4096, 100),
    "cpuinfo": (_WHOLE, 4096, 100),
    "uptime": (_WHOLE, 100, 7),
    "loadavg": (_WHOLE, 100, 7),
}
_MAX_NOTED = 10
_STOP, _READS, _FAILURES, _SLOWEST_NS, _BEGAN_NS = range(5)
_END_S = 5.0


@dataclass(frozen=True, slots=True)
class Failure:
    """A read that was not as it must be."""

    file: str
    chunk: int
    at_s: float
    """Monotonic."""
    problem: str
    data: str


@dataclass(frozen=True, slots=True)
class Allowed:
    """What is no failure, where the surroundings are bad enough for it."""

    hosts: bool = False
    """The host's bytes."""
    steps_back: bool = False
    """Counters that are less than before."""


STRICT = Allowed()


@dataclass(slots=True)
class Tally:
    """What readers have seen."""

    reads: int = 0
    failed: int = 0
    slowest_s: float = 0.0
    slowest: str = ""
    """Which file the slowest read was of, and when."""
    hosts: int = 0
    """Files that were the host's, where that was allowed."""
    steps_back: int = 0
    """Files with a counter that was less than before, where that was allowed."""
    host_steps_back: int = 0
    """How often a counter of the host was less than before; not counted as failed."""
    failures: list[Failure] = field(default_factory=list)
    """The first few."""

    def add(self, other: Tally) -> None:
        """Count another reader's too."""
        self.reads += other.reads
        self.failed += other.failed
        self.failures += other.failures
        self.hosts += other.hosts
        self.steps_back += other.steps_back
        self.host_steps_back += other.host_steps_back
        if other.slowest_s > self.slowest_s:
            self.slowest_s, self.slowest = other.slowest_s, other.slowest

    def __str__(self) -> str:
        """The figures in one line."""
        text = f"{self.reads} reads, {self.failed} failed, slowest {self.slowest_s * 1000:.0f} ms"
        text += f", {self.hosts} were the host's" if self.hosts else ""
        return text + (f", {self.steps_back} stepped back" if self.steps_back else "")

    def all_right(self) -> None:
        """Fail the test that calls it where a read has failed, with what was read."""
        noted = "\n".join(f"  {failure}" for failure in self.failures)
        assert self.failed == 0, f"{self}\n{noted}"
        assert self.reads > 0, "nobody has read"


class Reader:
    """A process that reads until it is told to stop."""

    def __init__(
        self,
        group: Group,
        share: Share,
        mount: Path,
        report: Path,
        *,
        bound: bool,
        seed: int,
        allowed: Allowed = STRICT,
    ) -> None:
        """With `bound` it has a mount namespace of its own, and the files at `/proc/NAME` in it."""
        self._page = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")
        self._report = report
        self.group = group
        self.bound = bound
        loop = _Loop(share, self._page, report, seed, allowed)
        self.pid = fork()
        if self.pid == 0:
            _be_reader(group, mount, bound, loop)

    @property
    def reads(self) -> int:
        """How often it has read so far."""
        return self._page[_READS]

    @property
    def failures(self) -> int:
        """How often that was not right."""
        return self._page[_FAILURES]

    def waiting_s(self) -> float:
        """Since when its read of now has been waiting."""
        began_ns = self._page[_BEGAN_NS]
        return (time.monotonic_ns() - began_ns) / NS_PER_S if began_ns else 0.0

    def stop(self) -> Tally:
        """Let it end after its read of now, and return what it has seen."""
        self._page[_STOP] = 1
        try:
            eventually(lambda: not alive(self.pid), _END_S)
        except AssertionError:
            name = _wait_channel(self.pid)
            raise AssertionError(
                f"reader {self.pid} hangs in {name} for {self.waiting_s():.1f} s"
            ) from None
        os.waitpid(self.pid, 0)
        self.pid = 0
        if not self._report.exists():
            raise AssertionError("a reader died")
        said = json.loads(self._report.read_text())
        said["failures"] = [Failure(**failure) for failure in said["failures"]]
        return Tally(**said)

    def close(self) -> None:
        """End it, whatever it does."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0


class Crowd:
    """Readers that read at once."""

    def __init__(self, readers: Sequence[Reader]) -> None:
        self.readers = readers

    @property
    def failures(self) -> int:
        """How many reads have failed so far."""
        return sum(reader.failures for reader in self.readers)

    @property
    def groups(self) -> list[Group]:
        """Their containers, the smallest first."""
        return list(dict.fromkeys(reader.group for reader in self.readers))

    def others(self, group: Group) -> Crowd:
        """Those that are not in this container."""
        return Crowd([reader for reader in self.readers if reader.group != group])

    def read_some(self, times: int = 3, bound_s: float = 5.0) -> None:
        """Wait until each has read so often from now on."""
        goals = [(reader, reader.reads + times) for reader in self.readers]
        eventually(lambda: all(reader.reads >= goal for reader, goal in goals), bound_s)

    def stop(self) -> Tally:
        """Let all end, and return what they have seen together."""
        total = Tally()
        for reader in self.readers:
            reader._page[_STOP] = 1
        for reader in self.readers:
            total.add(reader.stop())
        return total


@contextmanager
def containers() -> Iterator[list[tuple[Group, Share]]]:
    """Four containers with limits of their own, and what each must see."""
    first = ONLINE[0]
    with (
        container(memory_bytes=100 * MIB, cpus=1) as one,
        container(memory_bytes=200 * MIB, cpuset=str(first)) as two,
        container(memory_bytes=300 * MIB, cpus=1.5) as three,
        container(memory_bytes=400 * MIB) as four,
    ):
        yield [
            (one, Share(100 << 10, ONLINE[:1])),
            (two, Share(200 << 10, ONLINE[:1])),
            (three, Share(300 << 10, ONLINE[:2])),
            (four, Share(400 << 10, ONLINE)),
        ]


@contextmanager
def crowd(
    mount: Path, *, each: int = 2, bound: bool | None = None, allowed: Allowed = STRICT
) -> Iterator[Crowd]:
    """Readers in four containers.

    In each container one reads through the path of the mount and one through bind mounts, unless
    `bound` says how all do.
    """
    readers: list[Reader] = []
    with ExitStack() as stack:
        reports = stack.enter_context(folder())
        places = stack.enter_context(containers())
        try:
            for group, share in places:
                for number in range(each):
                    through = number % 2 == 1 if bound is None else bound
                    seed = len(readers)
                    report = reports / str(seed)
                    readers.append(
                        Reader(
                            group, share, mount, report, bound=through, seed=seed, allowed=allowed
                        )
                    )
            together = Crowd(readers)
            together.read_some()
            yield together
        finally:
            for reader in readers:
                reader.close()


class _Loop:
    """What a reader does, in its process."""

    def __init__(
        self, share: Share, page: memoryview[int], report: Path, seed: int, allowed: Allowed
    ) -> None:
        self._form = form_of_host()
        self._checker = Checker(share, self._form)
        self._host = host_share()
        self._allowed = allowed
        self._page = page
        self._report = report
        self._random = random.Random(seed)
        self._tally = Tally()

    def run(self, paths: Mapping[str, str]) -> None:
        """Read until told to stop, then write the report."""
        page = self._page
        while not page[_STOP]:
            name = self._random.choice(FILES)
            chunk = self._random.choice(_CHUNKS[name])
            page[_BEGAN_NS] = began_ns = time.monotonic_ns()
            self._once(name, paths[name], chunk)
            page[_BEGAN_NS] = 0
            self._time(name, began_ns)
            page[_READS] = self._tally.reads = self._tally.reads + 1
        self._tally.host_steps_back = self._checker.host_steps_back
        self._report.write_text(json.dumps(asdict(self._tally)))

    def _once(self, name: str, path: str, chunk: int) -> None:
        data = b""
        try:
            data = _read(path, chunk)
            self._checker.check(name, data)
        except (OSError, WrongError) as error:
            if self._is_allowed(name, data, error):
                return
            self._page[_FAILURES] = self._tally.failed = self._tally.failed + 1
            if len(self._tally.failures) < _MAX_NOTED:
                shown = data[:200].decode(errors="replace")
                self._tally.failures.append(
                    Failure(name, chunk, time.monotonic(), str(error), shown)
                )

    def _is_allowed(self, name: str, data: bytes, error: Exception) -> bool:
        if isinstance(error, StepBackError) and self._allowed.steps_back:
            self._tally.steps_back += 1
            return True
        if isinstance(error, WrongError) and self._allowed.hosts:
            try:
                # A new one: the host's counters are older than the container's.
                Checker(self._host, self._form).check(name, data)
            except WrongError:
                return False
            self._tally.hosts += 1
            return True
        return False

    def _time(self, name: str, began_ns: int) -> None:
        took_s = (time.monotonic_ns() - began_ns) / NS_PER_S
        if took_s > self._tally.slowest_s:
            self._tally.slowest_s = took_s
            self._tally.slowest = f"{name} at {began_ns / NS_PER_S:.3f}"


def _be_reader(group: Group, mount: Path, bound: bool, loop: _Loop) -> NoReturn:
    code = 1
    try:
        syscalls.set_pdeathsig(signal.SIGKILL)
        group.add(0)
        top = mount / "proc"
        if bound:
            bind_files(mount)
            top = Path("/proc")
        loop.run({name: str(top / name) for name in FILES})
        code = 0
    except BaseException:  # noqa: BLE001 - the process ends here whatever it was
        traceback.print_exc()
    finally:
        os._exit(code)


def bind_files(mount: Path) -> None:
    """Give this process a mount namespace with the files at their places, and nothing else of us.

    As a container has it: the mount itself is not to be seen in it.
    """
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    for name in FILES:
        syscalls.mount(str(mount / "proc" / name), f"/proc/{name}", None, syscalls.MS_BIND)
        remount = syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_RDONLY | flags
        syscalls.mount(None, f"/proc/{name}", None, remount)
    # In a user namespace what came with the mount namespace is locked, and stays.
    with contextlib.suppress(OSError):
        syscalls.umount2(str(mount), syscalls.MNT_DETACH)


def _read(path: str, chunk: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(descriptor, chunk):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def _wait_channel(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/wchan").read_text()
    except OSError:
        return "nothing"
