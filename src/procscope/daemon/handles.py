"""The contents of open files, in memory that all workers share.

A READ may be answered by another worker than its OPEN was, so contents live in one memfd that every
worker maps. It is divided into slots of three sizes; pages that were never written cost nothing.
Each worker hands out the slots of its own part only, so that no lock is needed; any worker may read
a slot or mark it as released, and the owner takes it back later.

After a page of header come the headers of all slots, close together: a search for free slots must
not touch the pages of the slots, since also a read makes the kernel provide a page. A header has
64-bit words, each written by one store:

state       FREE, IN_USE or RELEASED
generation  counts the uses of the slot; a stale handle does not match it
length      of the content, in bytes
reads       how often the content was read from its start
version     odd while the content is being replaced; a reader that sees it change reads again
opener      the number of the OPEN that it was made for
owner       the number of the container that it was made for
reader      the number of the last READ from its start
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from array import array
from collections.abc import Iterator

from procscope.daemon.handlelayout import (
    GENERATION_BITS,
    HEADER_WORDS,
    SLOT_BITS,
    SLOT_CLASSES,
    STORE_WORDS,
    WHAT,
    WORD_BYTES,
    Layout,
    SlotClass,
)
from procscope.daemon.recent import RecentRenderings
from procscope.daemon.sharedmemory import SharedMemory, read_header, unknown
from procscope.ids import FileHandle

MEMFD_NAME = "procscope-handles"
"""By which a worker's descriptor of it is known in /proc."""
_FREE, _IN_USE, _RELEASED = 0, 1, 2
_STATE, _GENERATION, _LENGTH, _READS, _VERSION, _OPENER, _OWNER, _READER = range(8)
_FIRST_HEADER_WORD = mmap.PAGESIZE // WORD_BYTES

_MOST_COUNT = (1 << 64) - 1
_READ_TRIES = 100
"""A worker that is killed while it replaces a content leaves an odd version behind."""
_RECLAIM_EVERY_NS = 5_000_000
"""A search that finds none free has looked at thousands of headers."""
_RECLAIMED_AT_ONCE = 64
"""Of each size, the first ones of a part: slots that were never used take no memory."""


class HandleStore:
    """All slots. `adopt_part` says which of them this process hands out."""

    def __init__(self, memory: SharedMemory, layout: Layout) -> None:
        """Use `create` or `adopt`."""
        self._memory = memory
        self._layout = layout
        self._classes = layout.classes
        self._slots_per_part = layout.slots_per_part
        self._bytes = memory.bytes
        self._words = memory.words
        self._starts = self._slot_starts(layout.first_start)
        self._recent = RecentRenderings(
            memory.bytes[layout.recent_start :], array("Q", layout.secret).tobytes()
        )
        self._part: int | None = None
        self._free: tuple[list[int], ...] = tuple([] for _ in layout.classes)
        self._owned: tuple[range, ...] = ()
        self._none_free_at_ns = [-_RECLAIM_EVERY_NS for _ in layout.classes]
        self._left_open: dict[int, FileHandle] = {}
        self._newest: tuple[int, FileHandle] = (0, FileHandle(0))

    @classmethod
    def create(cls, parts: int, classes: tuple[SlotClass, ...] = SLOT_CLASSES) -> HandleStore:
        """Make an empty store with a part for each of so many workers.

        Handles of a store that was made before are nothing to it.
        """
        secret = _random_bits(64), _random_bits(64)
        layout = Layout(parts, _random_bits(GENERATION_BITS), secret, classes)
        memory = SharedMemory.create(MEMFD_NAME, layout.size_bytes)
        words = layout.words()
        memory.words[: len(words)] = memoryview(words)
        return cls(memory, layout)

    @classmethod
    def adopt(cls, fd: int) -> HandleStore:
        """Use the store that another process has made; `fd` is then this object's to close.

        Raises ProcscopeError where it is not in the form that this release knows; `fd` stays the
        caller's then.
        """
        layout = Layout.of_words(read_header(fd, WHAT, STORE_WORDS * WORD_BYTES).tolist())
        if os.fstat(fd).st_size != layout.size_bytes:
            raise unknown(WHAT, "their size is wrong")
        return cls(SharedMemory(fd), layout)

    @property
    def fd(self) -> int:
        """The memfd."""
        return self._memory.fd

    @property
    def parts(self) -> int:
        """How many workers can have a part."""
        return self._layout.parts

    def _slot_starts(self, offset: int) -> list[int]:
        starts: list[int] = []
        for _ in range(self.parts):
            for kind in self._classes:
                for _ in range(kind.per_worker):
                    starts.append(offset)
                    offset += kind.size_bytes
        return starts

    def adopt_part(self, worker: int) -> None:
        """Hand out slots of part `worker` from now on; open ones of a predecessor stay open."""
        if not 0 <= worker < self.parts:
            raise IndexError(f"there is no part {worker}")
        self._part = worker
        first = worker * self._slots_per_part
        owned: list[range] = []
        for kind in self._classes:
            owned.append(range(first, first + kind.per_worker))
            first += kind.per_worker
        self._owned = tuple(owned)
        for free in self._free:
            free.clear()
        self._left_open = self._opened()

    def kept(self) -> dict[int, FileHandle]:
        """Return what a predecessor has left in this part, by `opener`; it stays until `release`.

        Of two for the same opener one is left. To be called once, after `adopt_part`.
        """
        found: dict[int, FileHandle] = {}
        for opener, handle in self._all_opened():
            self.release(found.get(opener, FileHandle(0)))
            found[opener] = handle
        self.settle()
        return found

    def settle(self) -> None:
        """Every request that a predecessor has left is answered: its OPENs are done."""
        self._left_open.clear()

    def take_back(self, opener: int) -> None:
        """The kernel did not want the answer to this OPEN, the last one that `put` was for.

        It was answered by a predecessor: what was kept for this answer belongs to no file.
        """
        newest, handle = self._newest
        if opener and opener == newest:
            self.release(handle)

    def _opened(self) -> dict[int, FileHandle]:
        """Return the handles of this part by the numbers of their OPENs."""
        return dict(self._all_opened())

    def _all_opened(self) -> Iterator[tuple[int, FileHandle]]:
        for slot in (slot for owned in self._owned for slot in owned):
            word = _first_word(slot)
            if self._words[word + _STATE] == _IN_USE and self._words[word + _OPENER]:
                generation = self._words[word + _GENERATION]
                yield self._words[word + _OPENER], FileHandle(generation << SLOT_BITS | slot)

    def put(self, content: bytes, opener: int = 0, owner: int = 0) -> FileHandle:
        """Keep `content` for the OPEN of number `opener`; 0 where no slot is left that holds it.

        `owner` says whose it is, for `owner` of any worker.

        If a predecessor died between keeping a content for this OPEN and answering it, or just
        after that, the file has the content that was kept then.
        """
        if self._left_open and (left := self._left_open.pop(opener, None)) is not None:
            return left
        for index, kind in enumerate(self._classes):
            if len(content) > kind.size_bytes:
                continue
            slot = self._take(index)
            if slot is not None:
                return self._fill(slot, content, opener, owner)
        return FileHandle(0)

    def get(self, handle: FileHandle) -> bytes | None:
        """Return the content kept as `handle`; None where it is not (or no longer) known."""
        word = self._header(handle)
        if word is None:
            return None
        start = self._starts[_slot_of(handle)]
        for _ in range(_READ_TRIES):
            version = self._words[word + _VERSION]
            length = min(self._words[word + _LENGTH], self._size_of(_slot_of(handle)))
            content = bytes(self._bytes[start : start + length])
            if version % 2 == 0 and version == self._words[word + _VERSION]:
                # A slot that was released meanwhile may have another file's content by now.
                return content if self._header(handle) == word else None
        return None

    def owner(self, handle: FileHandle) -> int | None:
        """Return the `owner` that `put` was given; None where the handle is not known."""
        word = self._header(handle)
        return None if word is None else self._words[word + _OWNER]

    def count_read_from_start(self, handle: FileHandle, reader: int = 0) -> int:
        """Return how often the content was read from its start before, and count this time.

        0 where READ number `reader` was counted before: a predecessor had answered it, or died
        while it did, and whoever reads on must find the same content.
        """
        word = self._header(handle)
        if word is None or (reader and self._words[word + _READER] == reader):
            return 0
        self._words[word + _READER] = reader
        before = self._words[word + _READS]
        self._words[word + _READS] = (before + 1) & _MOST_COUNT
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
        lock_at = word * WORD_BYTES
        try:
            # A record lock belongs to the process: it ends with a worker that is killed.
            fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, WORD_BYTES, lock_at)
        except OSError:
            return False
        try:
            version = self._words[word + _VERSION] | 1
            self._words[word + _VERSION] = version
            self._bytes[start : start + len(content)] = content
            self._words[word + _LENGTH] = len(content)
            self._words[word + _VERSION] = (version + 1) & _MOST_COUNT
        finally:
            fcntl.lockf(self.fd, fcntl.LOCK_UN, WORD_BYTES, lock_at)
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

    def recent(self, name: str, max_age_ns: int) -> bytes | None:
        """Return the last rendering of `name` that any worker has noted, if it is young enough."""
        return self._recent.get(name, max_age_ns)

    def note(self, name: str, content: bytes, began_ns: int) -> None:
        """Keep a rendering for `recent`; to be called before it is given out."""
        if self._part is not None:
            self._recent.note(self._part, name, content, began_ns)

    def in_use(self) -> int:
        """Return how many slots hold the content of an open file."""
        slots = range(len(self._starts))
        return sum(self._words[_first_word(slot) + _STATE] == _IN_USE for slot in slots)

    def close(self) -> None:
        """Unmap and close the memory."""
        self._recent.close()
        self._memory.close()

    def _header(self, handle: FileHandle) -> int | None:
        """Return the index of the header's first word where `handle` is open."""
        slot = _slot_of(handle)
        generation = handle >> SLOT_BITS
        if generation == 0 or slot >= len(self._starts):
            return None
        word = _first_word(slot)
        if self._words[word + _STATE] != _IN_USE or self._words[word + _GENERATION] != generation:
            return None
        return word

    def _take(self, index: int) -> int | None:
        free = self._free[index]
        if not free and self._owned:
            now_ns = time.monotonic_ns()
            if now_ns - self._none_free_at_ns[index] > _RECLAIM_EVERY_NS:
                self._reclaim(self._owned[index], free)
                if not free:
                    self._none_free_at_ns[index] = now_ns
        return free.pop() if free else None

    def _fill(self, slot: int, content: bytes, opener: int, owner: int) -> FileHandle:
        start, word = self._starts[slot], _first_word(slot)
        before = self._words[word + _GENERATION] or self._layout.first_generation
        generation = before % ((1 << GENERATION_BITS) - 1) + 1
        self._bytes[start : start + len(content)] = content
        self._words[word + _LENGTH] = len(content)
        self._words[word + _READS] = 0
        self._words[word + _VERSION] = 0
        self._words[word + _OPENER] = opener
        self._words[word + _OWNER] = owner
        self._words[word + _READER] = 0
        self._words[word + _GENERATION] = generation
        self._words[word + _STATE] = _IN_USE
        handle = FileHandle(generation << SLOT_BITS | slot)
        self._newest = (opener, handle)
        return handle

    def _reclaim(self, owned: range, free: list[int]) -> None:
        """Find some slots that are free, or were released by other workers."""
        for slot in owned:
            word = _first_word(slot)
            if self._words[word + _STATE] != _IN_USE:
                self._words[word + _STATE] = _FREE
                free.append(slot)
                if len(free) == _RECLAIMED_AT_ONCE:
                    break
        free.reverse()

    def _size_of(self, slot: int) -> int:
        index = slot % self._slots_per_part
        for kind in self._classes:
            if index < kind.per_worker:
                return kind.size_bytes
            index -= kind.per_worker
        raise AssertionError("a slot belongs to one of the classes")


def _slot_of(handle: FileHandle) -> int:
    return handle & ((1 << SLOT_BITS) - 1)


def _first_word(slot: int) -> int:
    """Return the index of the first word of a slot's header."""
    return _FIRST_HEADER_WORD + slot * HEADER_WORDS


def _random_bits(count: int) -> int:
    """Return a number that nobody can guess; `secrets` would import all of `random` for it."""
    return int.from_bytes(os.urandom(8)) >> (64 - count)
