"""The contents of open files, in memory that all workers share.

A READ may be answered by another worker than its OPEN was, so contents live in one memfd that every
worker maps. It is divided into slots of three sizes; pages that were never written cost nothing.
Each worker hands out the slots of its own part only, so that no lock is needed; any worker may read
a slot or mark it as released, and the owner takes it back later.

After a page of header come the headers of all slots, close together: a search for free slots must
not touch the pages of the slots, since also a read makes the kernel provide a page. For the same
reason a search for used ones asks the kernel first which pages there are. A header has
64-bit words, each written by one store:

state       FREE, IN_USE or RELEASED
generation  counts the uses of the slot; a stale handle does not match it
length      of the content, in bytes
reads       how often the content was read from its start
version     odd while the content is being replaced; a reader that sees it change reads again
opener      the number of the OPEN that it was made for
owner       the number of the container that it was made for
reader      the number of the last READ from its start

A worker has what it has put into its own part last at hand as well, and looks at the header alone:
while that says that nobody has released or replaced the content, it is the same.
"""

from __future__ import annotations

import errno
import fcntl
import os
from array import array
from collections.abc import Iterator
from struct import Struct
from typing import Final

from procscope.daemon.handlelayout import (
    FIRST_HEADER_WORD,
    FREE,
    GENERATION,
    GENERATION_BITS,
    HEADER_WORDS,
    IN_USE,
    LENGTH,
    OPENER,
    OWNER,
    READER,
    READS,
    RELEASED,
    SLOT_BITS,
    SLOT_CLASSES,
    STATE,
    STORE_WORDS,
    VERSION,
    WHAT,
    WORD_BYTES,
    Layout,
    SlotClass,
    first_word,
)
from procscope.daemon.handlerooms import Room, rooms_of
from procscope.daemon.recent import RecentRenderings
from procscope.daemon.sharedmemory import SharedMemory, read_header, unknown
from procscope.ids import FileHandle

MEMFD_NAME = "procscope-handles"
"""By which a worker's descriptor of it is known in /proc."""
_SLOT_MASK: Final = (1 << SLOT_BITS) - 1
_MOST_GENERATION: Final = (1 << GENERATION_BITS) - 1
_MOST_COUNT: Final = (1 << 64) - 1
_READ_TRIES: Final = 100
"""A worker that is killed while it replaces a content leaves an odd version behind."""
_NO_END: Final = 1 << 63
_AT_HAND: Final = 32
_AT_HAND_BYTES: Final = 16 << 10
"""So many contents are kept at hand, of this length at most."""
_write_length_to_reader: Final = Struct("6Q").pack_into
"""All words of a header behind its generation, in their order."""


class HandleStore:
    """All slots. `adopt_part` says which of them this process hands out."""

    def __init__(self, memory: SharedMemory, layout: Layout) -> None:
        """Use `create` or `adopt`."""
        self._memory = memory
        self._layout = layout
        self._slots_per_part = layout.slots_per_part
        self._slots = layout.parts * self._slots_per_part
        self._bytes = memory.bytes
        self._words = memory.words
        self._rooms = rooms_of(layout)
        self._recent = RecentRenderings(
            memory.bytes[layout.recent_start :], array("Q", layout.secret).tobytes()
        )
        self._part: int | None = None
        self._own_rooms: list[Room] = []
        self._at_hand: dict[int, tuple[FileHandle, int, bytes]] = {}
        """By slot: handle, first word of the header, and content, as this process has put it."""
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

    def adopt_part(self, worker: int) -> None:
        """Hand out slots of part `worker` from now on; open ones of a predecessor stay open."""
        if not 0 <= worker < self.parts:
            raise IndexError(f"there is no part {worker}")
        self._part = worker
        self._own_rooms = self._rooms[worker]
        for room in self._own_rooms:
            room.free.clear()
        self._at_hand.clear()
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
        for slot in self._used_once():
            word = first_word(slot)
            if self._words[word + STATE] == IN_USE and self._words[word + OPENER]:
                generation = self._words[word + GENERATION]
                yield self._words[word + OPENER], FileHandle(generation << SLOT_BITS | slot)

    def _used_once(self) -> Iterator[int]:
        """Yield the slots of this part whose headers are on pages that were ever touched."""
        first, end = self._own_rooms[0].slots.start, self._own_rooms[-1].slots.stop
        while first < end:
            try:
                data = os.lseek(self.fd, first_word(first) * WORD_BYTES, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                # There is nothing from there to the end.
                return
            first = max(first, _slot_at(data))
            hole = _slot_at(os.lseek(self.fd, data, os.SEEK_HOLE))
            yield from range(first, min(hole, end))
            first = hole

    def put(self, content: bytes, opener: int = 0, owner: int = 0) -> FileHandle:
        """Keep `content` for the OPEN of number `opener`; 0 where no slot is left that holds it.

        `owner` says whose it is, for `owner` of any worker.

        If a predecessor died between keeping a content for this OPEN and answering it, or just
        after that, the file has the content that was kept then.
        """
        if self._left_open and (left := self._left_open.pop(opener, None)) is not None:
            return left
        length = len(content)
        for room in self._own_rooms:
            if length <= room.size_bytes:
                slot = room.free.pop() if room.free else room.take(self._words)
                if slot is not None:
                    return self._fill(room, slot, content, opener, owner)
        return FileHandle(0)

    def get(self, handle: FileHandle) -> bytes | None:
        """Return the content kept as `handle`; None where it is not (or no longer) known."""
        return self.read(handle, 0, _NO_END)

    def read(self, handle: FileHandle, offset: int, size: int) -> bytes | None:
        """Return at most `size` bytes of the content of `handle` from `offset` on.

        Empty at its end and beyond; None where it is not (or no longer) known.
        """
        at_hand = self._at_hand.get(handle & _SLOT_MASK)
        if at_hand is not None:
            filled, word, content = at_hand
            words = self._words
            if filled == handle and words[word + STATE] == IN_USE and not words[word + VERSION]:
                return content[offset : offset + size]
        return self._copy(handle, offset, size)

    def _copy(self, handle: FileHandle, offset: int, size: int) -> bytes | None:
        """Return the same from the memory that all workers share."""
        word = self._header(handle)
        if word is None:
            return None
        slot = handle & _SLOT_MASK
        room = self._room_of(slot)
        start = room.base + slot * room.size_bytes
        for _ in range(_READ_TRIES):
            version = self._words[word + VERSION]
            length = min(self._words[word + LENGTH], room.size_bytes)
            first, end = min(offset, length), min(offset + size, length)
            content = bytes(self._bytes[start + first : start + end])
            if version % 2 == 0 and version == self._words[word + VERSION]:
                # A slot that was released meanwhile may have another file's content by now.
                return content if self._header(handle) == word else None
        return None

    def owner(self, handle: FileHandle) -> int | None:
        """Return the `owner` that `put` was given; None where the handle is not known."""
        word = self._header(handle)
        return None if word is None else self._words[word + OWNER]

    def count_read_from_start(self, handle: FileHandle, reader: int = 0) -> int:
        """Return how often the content was read from its start before, and count this time.

        0 where READ number `reader` was counted before: a predecessor had answered it, or died
        while it did, and whoever reads on must find the same content.
        """
        word = self._header(handle)
        words = self._words
        if word is None or (reader and words[word + READER] == reader):
            return 0
        words[word + READER] = reader
        before = words[word + READS]
        words[word + READS] = (before + 1) & _MOST_COUNT
        return before

    def replace(self, handle: FileHandle, content: bytes) -> bool:
        """Put newer content in the place of what `handle` has.

        False where another worker is doing the same at this moment, or where it does not fit:
        then the handle is released, so that nobody goes on reading what is old.
        """
        word = self._header(handle)
        if word is None:
            return False
        slot = handle & _SLOT_MASK
        room = self._room_of(slot)
        if len(content) > room.size_bytes:
            self.release(handle)
            return False
        self._at_hand.pop(slot, None)
        start = room.base + slot * room.size_bytes
        lock_at = word * WORD_BYTES
        try:
            # A record lock belongs to the process: it ends with a worker that is killed.
            fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, WORD_BYTES, lock_at)
        except OSError:
            return False
        try:
            version = self._words[word + VERSION] | 1
            self._words[word + VERSION] = version
            self._bytes[start : start + len(content)] = content
            self._words[word + LENGTH] = len(content)
            self._words[word + VERSION] = (version + 1) & _MOST_COUNT
        finally:
            fcntl.lockf(self.fd, fcntl.LOCK_UN, WORD_BYTES, lock_at)
        return True

    def release(self, handle: FileHandle) -> None:
        """The file is closed; the slot's owner may use it again."""
        word = self._header(handle)
        if word is None:
            return
        slot = handle & _SLOT_MASK
        if slot // self._slots_per_part != self._part:
            self._words[word + STATE] = RELEASED
            return
        self._words[word + STATE] = FREE
        self._room_of(slot).free.append(slot)
        self._at_hand.pop(slot, None)

    def recent(self, name: str, max_age_ns: int) -> bytes | None:
        """Return the last rendering of `name` that any worker has noted, if it is young enough."""
        return self._recent.get(name, max_age_ns)

    def note(self, name: str, content: bytes, began_ns: int) -> None:
        """Keep a rendering for `recent`; to be called before it is given out."""
        if self._part is not None:
            self._recent.note(self._part, name, content, began_ns)

    def in_use(self) -> int:
        """Return how many slots hold the content of an open file."""
        return sum(self._words[first_word(slot) + STATE] == IN_USE for slot in range(self._slots))

    def close(self) -> None:
        """Unmap and close the memory."""
        self._recent.close()
        self._memory.close()

    def _header(self, handle: FileHandle) -> int | None:
        """Return the index of the header's first word where `handle` is open."""
        slot = handle & _SLOT_MASK
        generation = handle >> SLOT_BITS
        if generation == 0 or slot >= self._slots:
            return None
        words, word = self._words, FIRST_HEADER_WORD + slot * HEADER_WORDS
        if words[word + STATE] != IN_USE or words[word + GENERATION] != generation:
            return None
        return word

    def _room_of(self, slot: int) -> Room:
        """Return the room of any worker's slot."""
        for room in self._rooms[slot // self._slots_per_part]:
            if slot < room.slots.stop:
                return room
        raise AssertionError("a slot belongs to one of the rooms")

    def _fill(self, room: Room, slot: int, content: bytes, opener: int, owner: int) -> FileHandle:
        words, length = self._words, len(content)
        word = FIRST_HEADER_WORD + slot * HEADER_WORDS
        before = words[word + GENERATION] or self._layout.first_generation
        generation = before + 1 if before < _MOST_GENERATION else 1
        start = room.base + slot * room.size_bytes
        self._bytes[start : start + length] = content
        _write_length_to_reader(
            self._bytes, (word + LENGTH) * WORD_BYTES, length, 0, 0, opener, owner, 0
        )
        words[word + GENERATION] = generation
        words[word + STATE] = IN_USE
        handle = FileHandle(generation << SLOT_BITS | slot)
        self._newest = (opener, handle)
        if length > _AT_HAND_BYTES:
            self._at_hand.pop(slot, None)
            return handle
        if len(self._at_hand) >= _AT_HAND:
            self._at_hand.pop(next(iter(self._at_hand)))
        self._at_hand[slot] = (handle, word, content)
        return handle


def _slot_at(offset: int) -> int:
    """Return the slot whose header is at that byte; pages begin with the whole header of one."""
    return (offset // WORD_BYTES - FIRST_HEADER_WORD) // HEADER_WORDS


def _random_bits(count: int) -> int:
    """Return a number that nobody can guess; `secrets` would import all of `random` for it."""
    return int.from_bytes(os.urandom(8)) >> (64 - count)
