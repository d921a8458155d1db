"""What must outlive a worker of each container: one small file for each, in a state directory.

All workers and the sampler share the files, and they survive a restart of the daemon (not of the
host). A file has four blocks at fixed places:

identity  JSON: the container's cgroup paths, by which the sampler finds its tasks, and its birth
load      load averages and task counts; written by the sampler alone
asleep    whether all tasks slept when they were last counted; written by the sampler alone
ledger    the CPU time handed out so far; written by whoever renders `stat` or `uptime`, locked

A file is named by the container's key and its cgroup's inode number, so that a cgroup that is made
again at the same path starts anew. Blocks carry a checksum: a write that was cut short by a kill
reads as "nothing there", never as a wrong number. The disk space that they need is taken when the
file is made, so that what is counted goes on on a disk that is full later.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import struct
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from sys import intern

from procscope.cgroup.files import CgroupGone, FileBudget, open_within
from procscope.ids import CgroupPath
from procscope.values import frozen

_LOAD_OFFSET = 0
_ASLEEP_OFFSET = 1024
_IDENTITY_OFFSET = 4096
_LEDGER_OFFSET = 1 << 20
"""Room for a path of PATH_MAX for each of v1's controllers; what is not written takes no space."""
_LEDGER_MAX_BYTES = 1 << 20
_FIRST_BLOCKS_BYTES = 8192
"""Load and, but for very long paths, identity."""
_LEDGER_BYTES = 4096
_LEDGER_BYTES_PER_CPU = 128
"""More than a ledger needs for a CPU that was ever visible."""
_BLOCK = struct.Struct("<II")
"""Length and CRC-32 of what follows."""
LOCK_PATIENCE_NS = 5_000_000
"""A holder is a worker that is computing; one that was stopped must not stop the others."""
_LOCK_RETRY_S = 0.0002
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@frozen
class RecordIdentity:
    """Whose record it is."""

    cgroups: Mapping[str, CgroupPath]
    birth_ticks: int
    """Start of the container's first process in USER_HZ ticks since boot."""


class Record:
    """One container's file, kept open within a budget.

    Where it was closed for the budget's sake, and is gone when it is wanted again, its methods
    raise CgroupGone: the sampler has removed it with its cgroup, and whoever is still there begins
    anew.
    """

    __slots__ = ("_budget", "_known_load", "_path", "_written_ledger", "fd", "is_held")

    def __init__(self, path: str, *, create: bool, budget: FileBudget | None = None) -> None:
        """Raises OSError, also where a disk is too full for the record to be ever written."""
        self._path = path
        self._known_load = b""
        self._written_ledger = b""
        """Whole blocks, as they were last read and written here; or nothing."""
        self._budget = FileBudget() if budget is None else budget
        self.is_held = False
        """Whether the ledger is locked: the lock would end with the descriptor."""
        self.fd = open_within(self._budget, path, os.O_RDWR | (os.O_CREAT if create else 0))
        self._budget.add(self)
        if create:
            self._take_space()

    def close(self) -> None:
        """Close the file; the record stays."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            self._budget.discard(self)
            os.close(fd)

    def _take_space(self) -> None:
        """Have the disk keep room for what will be written; raise OSError if a new record has none.

        One that has been written to before is of use also where it cannot grow.
        """
        ledger_bytes = _LEDGER_BYTES + _LEDGER_BYTES_PER_CPU * (os.cpu_count() or 1)
        try:
            os.posix_fallocate(self.fd, _LEDGER_OFFSET, ledger_bytes // 4096 * 4096)
            os.posix_fallocate(self.fd, 0, _FIRST_BLOCKS_BYTES)
        except OSError as error:
            if error.errno in _FULL and self.read_identity() is None:
                self.close()
                raise

    def _opened(self) -> int:
        if self.fd >= 0:
            if self._budget.is_tight:
                self._budget.used(self)
            return self.fd
        try:
            self.fd = open_within(self._budget, self._path, os.O_RDWR)
        except FileNotFoundError:
            raise CgroupGone(self._path) from None
        self._budget.add(self)
        return self.fd

    def read_identity(self) -> RecordIdentity | None:
        """Return whose record it is; None for a new one."""
        block = self._read(_IDENTITY_OFFSET, 4096)
        try:
            identity = json.loads(block or b"")
            return RecordIdentity(
                _each_once(identity["cgroups"].items()), int(identity["birth_ticks"])
            )
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            return None

    def write_identity(self, identity: RecordIdentity) -> None:
        """Say whose record it is."""
        text = json.dumps({"cgroups": dict(identity.cgroups), "birth_ticks": identity.birth_ticks})
        self._write(_IDENTITY_OFFSET, text.encode())

    def read_load(self) -> bytes | None:
        """Return the sampler's block, None before its first pass."""
        payload = self._read(_LOAD_OFFSET, 512)
        self._known_load = b"" if payload is None else _block_of(payload)
        return payload

    def load_is_known(self) -> bool:
        """Whether the sampler's block is what this process has last read, byte for byte."""
        known = self._known_load
        return bool(known) and os.pread(self._opened(), len(known), _LOAD_OFFSET) == known

    def write_load(self, block: bytes) -> None:
        """Replace the sampler's block."""
        self._write(_LOAD_OFFSET, block)

    def read_asleep(self) -> bytes | None:
        """Return what the sampler's last count found, as `observe.asleep` has it."""
        return self._read(_ASLEEP_OFFSET, 64)

    def write_asleep(self, block: bytes) -> None:
        """Replace that."""
        self._write(_ASLEEP_OFFSET, block)

    def read_ledger(self) -> bytes | None:
        """Return the ledger; None where there is none yet."""
        return self._read(_LEDGER_OFFSET, 4096)

    def write_ledger(self, payload: bytes) -> None:
        """Replace the ledger. Only with `ledger_lock` held."""
        block = _block_of(payload)
        self._written_ledger = b""
        os.pwrite(self.fd if self.is_held else self._opened(), block, _LEDGER_OFFSET)
        self._written_ledger = block

    def ledger_is_as_written(self) -> bool:
        """Whether the ledger is what was last written through this object, byte for byte."""
        written = self._written_ledger
        if not written:
            return False
        fd = self.fd if self.is_held else self._opened()
        return os.pread(fd, len(written), _LEDGER_OFFSET) == written

    @contextlib.contextmanager
    def ledger_lock(self, patience_ns: int = LOCK_PATIENCE_NS) -> Iterator[bool]:
        """Hold the ledger alone for the time of the block.

        Yields False where another held it for `patience_ns`.
        """
        locked = self.lock_ledger(patience_ns)
        try:
            yield locked
        finally:
            if locked:
                self.unlock_ledger()

    def lock_ledger(self, patience_ns: int = 0) -> bool:
        """Hold the ledger alone until `unlock_ledger`; False where another holds it for so long.

        The kernel frees the lock of a process that dies. Without the lock the caller may read and
        render, and must not write.
        """
        fd = self._opened()
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if not _lock(fd, patience_ns):
                return False
        self.is_held = True
        return True

    def unlock_ledger(self) -> None:
        """Let others write the ledger."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_UN)
        finally:
            self.is_held = False

    def _read(self, offset: int, size_hint: int) -> bytes | None:
        fd = self._opened()
        data = os.pread(fd, size_hint, offset)
        if len(data) < _BLOCK.size:
            return None
        length, checksum = _BLOCK.unpack_from(data)
        if length == 0 or length > _LEDGER_MAX_BYTES:
            return None
        if length + _BLOCK.size > len(data):
            data = os.pread(fd, length + _BLOCK.size, offset)
        payload = data[_BLOCK.size : _BLOCK.size + length]
        whole = len(payload) == length and zlib.crc32(payload) == checksum
        return payload if whole else None

    def _write(self, offset: int, payload: bytes) -> None:
        os.pwrite(self._opened(), _block_of(payload), offset)


def _block_of(payload: bytes) -> bytes:
    return _BLOCK.pack(len(payload), zlib.crc32(payload)) + payload


def _each_once(items: Iterable[tuple[object, object]]) -> Mapping[str, CgroupPath]:
    """Return the paths by controller. Most are the same, and are kept once."""
    paths: dict[str, CgroupPath] = {}
    return {
        intern(str(controller)): paths.setdefault(str(path), CgroupPath(str(path)))
        for controller, path in items
    }


def _lock(fd: int, patience_ns: int) -> bool:
    deadline_ns: int | None = None
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            now_ns = time.monotonic_ns()
            deadline_ns = deadline_ns or now_ns + patience_ns
            if now_ns >= deadline_ns:
                return False
            time.sleep(_LOCK_RETRY_S)
        else:
            return True


class RecordStore:
    """The state directory. Raises OSError where it cannot be made."""

    def __init__(self, directory: str) -> None:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self.directory = directory

    def open(self, name: str, budget: FileBudget | None = None) -> Record:
        """Return the record `name`, a new one where there is none. Raises OSError.

        A directory that somebody has removed meanwhile is made again. A new record for which the
        disk has no room is not left behind.
        """
        path = os.path.join(self.directory, name)
        try:
            return self._create(path, budget)
        except FileNotFoundError:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            return self._create(path, budget)

    def _create(self, path: str, budget: FileBudget | None) -> Record:
        try:
            return Record(path, create=True, budget=budget)
        except OSError as error:
            if error.errno in _FULL:
                # It would be listed, and never say whose it is.
                with contextlib.suppress(OSError):
                    os.unlink(path)
            raise

    def open_existing(self, name: str, budget: FileBudget | None = None) -> Record | None:
        """Return the record `name`, or None. Raises OSError."""
        try:
            return Record(os.path.join(self.directory, name), create=False, budget=budget)
        except FileNotFoundError:
            return None

    def names(self) -> tuple[str, ...]:
        """Return the names of all records."""
        try:
            return tuple(os.listdir(self.directory))
        except FileNotFoundError:
            return ()

    def changed_ns(self) -> int | None:
        """Return a time that is another one after a record was made or removed; None: not known."""
        try:
            return os.stat(self.directory).st_mtime_ns
        except OSError:
            return None

    def remove(self, name: str) -> None:
        """Remove a record; whoever has it open keeps it until it closes it."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.directory, name))
