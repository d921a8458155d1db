"""The host's own files, kept open, and re-read only when what was read is older than a moment.

One snapshot serves all containers that ask within that moment: `/proc/stat` and `/proc/cpuinfo`
are expensive on hosts with many CPUs.

What moves is shared by all workers: a counter must not be less in one answer than in the one before
it, which another worker gave. The store that they share gives out nothing that is older than what
any of them has used before; what it does not have, or has no room for, is read anew. What is steady
has no counters, and each worker keeps its own.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

from procscope.cgroup.files import FileBudget, open_for_reading
from procscope.ids import CpuId
from procscope.linux.cpulist import parse_cpulist
from procscope.observe.hostmemory import HostMemoryFile
from procscope.views.meminfo import HostMemory

_NS_PER_MS = 1_000_000
MOVING_NS = 5 * _NS_PER_MS
"""How long a snapshot of a file with moving counters is good."""
LOOK_NS = 100 * _NS_PER_MS
"""How long it is good what a limit is compared with: how much memory and swap there is."""
STEADY_NS = 500 * _NS_PER_MS
"""How long one of what changes with hotplug or by an administrator's hand is good."""
_NEVER_NS = -(1 << 62)
_FIRST_READ_BYTES = 65536
_ONLINE = "devices/system/cpu/online"
_OVERCOMMIT_RATIO = "sys/vm/overcommit_ratio"
_IN_ONE_PIECE = ("/meminfo", "/stat")
"""Made by one call of show(): seq_read_iter() in the kernel's `fs/seq_file.c` makes its buffer as
large as that takes. Of others it gives what fits, and the end has to be looked for."""

_Parsed = TypeVar("_Parsed")


class SharedSnapshots(Protocol):
    """What several processes have read, in memory that they share."""

    def recent(self, name: str, max_age_ns: int) -> bytes | None:
        """Return what was last noted as `name` by any of them, if it was begun no longer ago.

        None too where something that was noted may be newer.
        """
        ...

    def note(self, name: str, content: bytes, began_ns: int) -> None:
        """Keep a content, begun at `began_ns` (monotonic), that is about to be used."""
        ...


class _Snapshot:
    __slots__ = ("content", "fd", "in_one_piece", "length", "parsed", "read_at_ns")

    def __init__(self, fd: int, in_one_piece: bool = False) -> None:
        self.fd = fd
        self.in_one_piece = in_one_piece
        """Whether the kernel gives all of it to a read that has room for more."""
        self.content = b""
        self.read_at_ns = _NEVER_NS
        self.length = 0
        """Of the last content, also where that is not kept here."""
        self.parsed: Any = None
        """What `content` says; None while nobody has asked."""

    def read(self) -> bytes:
        size_hint = max(self.length + 1024, 4096)
        content = os.pread(self.fd, size_hint, 0) if self.in_one_piece else b""
        if not content or len(content) == size_hint:
            content = read_whole(self.fd, size_hint)
        self.length = len(content)
        return content


class HostFiles:
    """Reads files below the host's `/proc` and `/sys`."""

    def __init__(
        self,
        proc: str = "/proc",
        sys: str = "/sys",
        *,
        shared: SharedSnapshots | None = None,
        budget: FileBudget | None = None,
    ) -> None:
        """`shared` None: nobody else tells anything. `budget` has files to give up for these."""
        self.proc = proc
        self.sys = sys
        self._shared = shared
        self._budget = FileBudget() if budget is None else budget
        self._snapshots: dict[str, _Snapshot] = {}
        self._memory = HostMemoryFile(
            lambda: self._snapshot(f"{proc}/meminfo").read(),
            self.overcommit_ratio,
            LOOK_NS,
            STEADY_NS,
        )
        self.memory: Callable[[], tuple[HostMemory, int]] = self._memory.now
        """How much memory, swap and huge pages there are, and vm.overcommit_ratio in per cent.

        At most `LOOK_NS` old, and what the hardware tells beside it `STEADY_NS`; the same object as
        long as it is equal. Nobody else is told of what is read for it, since nothing in it counts.
        Raises OSError, ValueError.
        """

    def read_proc(self, name: str, *, max_age_ns: int = MOVING_NS) -> bytes:
        """Return `/proc/NAME`, at most `max_age_ns` old. Raises OSError."""
        return self._read(f"{self.proc}/{name}", max_age_ns)

    def parsed(self, name: str, parse: Callable[[bytes], _Parsed]) -> _Parsed:
        """Return what `parse`, always the same, makes of `/proc/NAME`, at most `STEADY_NS` old.

        The same object as long as the text is the same. Raises OSError, and what `parse` raises.
        """
        return self._parsed(f"{self.proc}/{name}", parse)

    def read_sys(self, name: str, *, max_age_ns: int = STEADY_NS) -> bytes:
        """Return `/sys/NAME`, at most `max_age_ns` old. Raises OSError."""
        return self._read(f"{self.sys}/{name}", max_age_ns)

    def keep_open(self, names: Iterable[str]) -> None:
        """Open `/proc/NAME` for each of `names`, and what goes with them, where they are there.

        Who has run out of descriptors later has the host's bytes still.
        """
        paths = [f"{self.proc}/{name}" for name in (*names, _OVERCOMMIT_RATIO)]
        for path in (*paths, f"{self.sys}/{_ONLINE}"):
            with contextlib.suppress(OSError):
                self._snapshot(path)

    def online_cpus(self) -> tuple[CpuId, ...]:
        """Return the CPUs that are online, sorted. Raises OSError, ValueError."""
        return self._parsed(f"{self.sys}/{_ONLINE}", _parse_online)

    def steady_until_ns(self, names: Iterable[str] = ()) -> int:
        """Return until when (monotonic) which CPUs are online is good as it was read last.

        And so `/proc/NAME` for each of `names`, all of them read before.
        """
        paths = [f"{self.sys}/{_ONLINE}", *(f"{self.proc}/{name}" for name in names)]
        return min(self._snapshot(path).read_at_ns for path in paths) + STEADY_NS

    def overcommit_ratio(self) -> int:
        """Return `vm.overcommit_ratio` in per cent; the kernel's default where it is unreadable."""
        try:
            return self.parsed(_OVERCOMMIT_RATIO, int)
        except (OSError, ValueError):
            return 50

    def close(self) -> None:
        """Close every file that is kept open."""
        for snapshot in self._snapshots.values():
            os.close(snapshot.fd)
        self._snapshots.clear()

    def _read(self, path: str, max_age_ns: int) -> bytes:
        if self._shared is not None and max_age_ns <= MOVING_NS:
            return self._read_shared(self._shared, path, max_age_ns)
        return self._own(path, max_age_ns).content

    def _own(self, path: str, max_age_ns: int) -> _Snapshot:
        """Return this process's snapshot, read anew where it is too old."""
        now_ns = time.monotonic_ns()
        snapshot = self._snapshot(path)
        if now_ns - snapshot.read_at_ns > max_age_ns:
            content = snapshot.read()
            if content != snapshot.content:
                snapshot.content, snapshot.parsed = content, None
            snapshot.read_at_ns = now_ns
        return snapshot

    def _parsed(self, path: str, parse: Callable[[bytes], _Parsed]) -> _Parsed:
        snapshot = self._snapshots.get(path)
        now_ns = time.monotonic_ns()
        if snapshot is None or snapshot.parsed is None or now_ns - snapshot.read_at_ns > STEADY_NS:
            snapshot = self._own(path, STEADY_NS)
            if snapshot.parsed is None:
                snapshot.parsed = parse(snapshot.content)
        parsed: _Parsed = snapshot.parsed
        return parsed

    def _read_shared(self, shared: SharedSnapshots, path: str, max_age_ns: int) -> bytes:
        content = shared.recent(path, max_age_ns)
        if content is None:
            began_ns = time.monotonic_ns()
            snapshot = self._snapshot(path)
            content = snapshot.read()
            shared.note(path, content, began_ns)
        return content

    def _snapshot(self, path: str) -> _Snapshot:
        snapshot = self._snapshots.get(path)
        if snapshot is None:
            snapshot = self._snapshots[path] = _Snapshot(
                open_for_reading(path, self._budget), path.endswith(_IN_ONE_PIECE)
            )
        return snapshot


def _parse_online(text: bytes) -> tuple[CpuId, ...]:
    return parse_cpulist(text.decode("ascii"))


def read_whole(fd: int, size_hint: int = _FIRST_READ_BYTES) -> bytes:
    """Return a kernel-made file whole, from offset 0, without a seek. Raises OSError.

    seq_file fills at most one buffer for each read, so that a short read is not the end.
    """
    parts: list[bytes] = []
    offset = 0
    while part := os.pread(fd, size_hint, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)
