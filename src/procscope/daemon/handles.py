"""The contents of open files, in memory that all workers share.

A READ may be answered by another worker than its OPEN was, so contents live in one memfd that the
supervisor makes and every worker maps. It is divided into slots of three sizes; pages that were
never written cost nothing. Each worker hands out the slots of its own part only, so that no lock is
needed; any worker may read a slot or mark it as released, and the owner takes it back later.

The headers of all slots come first, close together: a search for free slots must not touch the
pages of the slots, since also a read makes the kernel provide a page. A header has 64-bit words,
each written by one store:

state       FREE, IN_USE or RELEASED
generation  counts the uses of the slot; a stale handle does not match it
length      of the content, in bytes
reads       how often the content was read from its start
version     odd while the content is being replaced; a reader that sees it change reads again
"""

from __future__ import annotations

import fcntl
import mmap
import os
from dataclasses import dataclass

from procscope.ids import FileHandle

_FREE, _IN_USE, _RELEASED = 0, 1, 2
_STATE, _GENERATION, _LENGTH, _READS, _VERSION = range(5)
_HEADER_WORDS = 5
_WORD_BYTES = 8
_HEADER_BYTES = _HEADER_WORDS * _WORD_BYTES

_SLOT_BITS = 20
_GENERATION_BITS = 63 - _SLOT_BITS
_READ_TRIES = 100
"""A worker that is killed while it replaces a content leaves an odd version behind."""


@dataclass(frozen=True, slots=True)
class SlotClass:
    """A size of slots, and how many of them each worker owns."""

    size_bytes: int
    per_worker: int


SLOT_CLASSES = (
    SlotClass(4 << 10, 2048),
    SlotClass(64 << 10, 256),
    SlotClass(1 << 20, 16),
)
"""Most files fit in a page; `cpuinfo` and `stat` of large hosts, and directories, need more."""


class HandleStore:
    """All slots. Made before the workers are forked; `adopt` then says which part is whose."""

    def __init__(self, workers: int, classes: tuple[SlotClass, ...] = SLOT_CLASSES) -> None:
        self._classes = classes
        self._workers = workers
        self._slots_per_worker = sum(kind.per_worker for kind in classes)
        bytes_per_worker = sum(kind.size_bytes * kind.per_worker for kind in classes)
        header_pages = -(-workers * self._slots_per_worker * _HEADER_BYTES // mmap.PAGESIZE)
        first_start = header_pages * mmap.PAGESIZE
        size_bytes = first_start + workers * bytes_per_worker
        self._fd = os.memfd_create("procscope-handles", os.MFD_CLOEXEC)
        os.ftruncate(self._fd, size_bytes)
        self._map = mmap.mmap(self._fd, size_bytes)
        self._bytes = memoryview(self._map)
        self._words = self._bytes.cast("Q")
        self._starts = self._slot_starts(first_start)
        self._free: tuple[list[int], ...] = tuple([] for _ in classes)
        self._owned: tuple[range, ...] = ()

    def _slot_starts(self, offset: int) -> list[int]:
        starts: list[int] = []
        for _ in range(self._workers):
            for kind in self._classes:
                for _ in range(kind.per_worker):
                    starts.append(offset)
                    offset += kind.size_bytes
        return starts

    def adopt(self, worker: int) -> None:
        """Hand out slots of part `worker` from now on; open ones of a predecessor stay open."""
        first = worker * self._slots_per_worker
        owned: list[range] = []
        for kind in self._classes:
            owned.append(range(first, first + kind.per_worker))
            first += kind.per_worker
        self._owned = tuple(owned)
        self._reclaim()

    def put(self, content: bytes) -> FileHandle:
        """Keep `content`; 0 where no slot is left that holds it."""
        for index, kind in enumerate(self._classes):
            if len(content) > kind.size_bytes:
                continue
            slot = self._take(index)
            if slot is not None:
                return self._fill(slot, content)
        return FileHandle(0)

    def get(self, handle: FileHandle) -> bytes | None:
        """Return the content kept as `handle`; None where it is not (or no longer) known."""
        word = self._header(handle)
        if word is None:
            return None
        start = self._starts[_slot_of(handle)]
        for _ in range(_READ_TRIES):
            version = self._words[word + _VERSION]
            content = bytes(self._bytes[start : start + self._words[word + _LENGTH]])
            if version % 2 == 0 and version == self._words[word + _VERSION]:
                # A slot that was released meanwhile may have another file's content by now.
                return content if self._header(handle) == word else None
        return None

    def count_read_from_start(self, handle: FileHandle) -> int:
        """Return how often the content was read from its start before, and count this time."""
        word = self._header(handle)
        if word is None:
            return 0
        before = self._words[word + _READS]
        self._words[word + _READS] = before + 1
        return before

    def replace(self, handle: FileHandle, content: bytes) -> bool:
        """Put newer content in the place of what `handle` has.

        False where another worker is doing the same at this moment, or where it does not fit:
        then the handle is released, so that nobody goes on reading what is old.
        """
        word = self._header(handle)
        slot = _slot_of(handle)
        if word is None:
            return False
        if len(content) > self._size_of(slot):
            self.release(handle)
            return False
        start = self._starts[slot]
        lock_at = word * _WORD_BYTES
        try:
            # A record lock belongs to the process: it ends with a worker that is killed.
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, _WORD_BYTES, lock_at)
        except OSError:
            return False
        try:
            version = self._words[word + _VERSION] | 1
            self._words[word + _VERSION] = version
            self._bytes[start : start + len(content)] = content
            self._words[word + _LENGTH] = len(content)
            self._words[word + _VERSION] = version + 1
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, _WORD_BYTES, lock_at)
        return True

    def release(self, handle: FileHandle) -> None:
        """The file is closed; the slot's owner may use it again."""
        word = self._header(handle)
        if word is None:
            return
        slot = _slot_of(handle)
        for owned, free in zip(self._owned, self._free, strict=True):
            if slot in owned:
                self._words[word + _STATE] = _FREE
                free.append(slot)
                return
        self._words[word + _STATE] = _RELEASED

    def in_use(self) -> int:
        """Return how many slots hold the content of an open file."""
        slots = range(len(self._starts))
        return sum(self._words[_first_word(slot) + _STATE] == _IN_USE for slot in slots)

    def close(self) -> None:
        """Unmap and close the memory."""
        self._words.release()
        self._bytes.release()
        self._map.close()
        os.close(self._fd)

    def _header(self, handle: FileHandle) -> int | None:
        """Return the index of the header's first word where `handle` is open."""
        slot = _slot_of(handle)
        generation = handle >> _SLOT_BITS
        if generation == 0 or slot >= len(self._starts):
            return None
        word = _first_word(slot)
        if self._words[word + _STATE] != _IN_USE or self._words[word + _GENERATION] != generation:
            return None
        return word

    def _take(self, index: int) -> int | None:
        if not self._free[index]:
            self._reclaim()
        return self._free[index].pop() if self._free[index] else None

    def _fill(self, slot: int, content: bytes) -> FileHandle:
        start, word = self._starts[slot], _first_word(slot)
        generation = self._words[word + _GENERATION] % ((1 << _GENERATION_BITS) - 1) + 1
        self._bytes[start : start + len(content)] = content
        self._words[word + _LENGTH] = len(content)
        self._words[word + _READS] = 0
        self._words[word + _VERSION] = 0
        self._words[word + _GENERATION] = generation
        self._words[word + _STATE] = _IN_USE
        return FileHandle(generation << _SLOT_BITS | slot)

    def _reclaim(self) -> None:
        """Find the slots of this part that are free, or were released by other workers."""
        for owned, free in zip(self._owned, self._free, strict=True):
            free.clear()
            for slot in reversed(owned):
                word = _first_word(slot)
                if self._words[word + _STATE] != _IN_USE:
                    self._words[word + _STATE] = _FREE
                    free.append(slot)

    def _size_of(self, slot: int) -> int:
        index = slot % self._slots_per_worker
        for kind in self._classes:
            if index < kind.per_worker:
                return kind.size_bytes
            index -= kind.per_worker
        raise AssertionError("a slot belongs to one of the classes")


def _slot_of(handle: FileHandle) -> int:
    return handle & ((1 << _SLOT_BITS) - 1)


def _first_word(slot: int) -> int:
    """Return the index of the first word of a slot's header."""
    return slot * _HEADER_WORDS
