"""How the memory of open files' contents is divided: what stands on its first page.

Another release may have made it, so that nothing in it is believed before it makes sense.
"""

from __future__ import annotations

import mmap
from array import array
from collections.abc import Sequence

from procscope.daemon.recent import TABLE_BYTES
from procscope.daemon.sharedmemory import unknown
from procscope.values import frozen

WHAT = "contents of open files"
WORD_BYTES = 8
HEADER_WORDS = 8
"""Of one slot."""
SLOT_BITS = 20
GENERATION_BITS = 63 - SLOT_BITS
STATE, GENERATION, LENGTH, READS, VERSION, OPENER, OWNER, READER = range(HEADER_WORDS)
"""The words of a slot's header."""
FREE, IN_USE, RELEASED = 0, 1, 2
FIRST_HEADER_WORD = mmap.PAGESIZE // WORD_BYTES
_HEADER_BYTES = HEADER_WORDS * WORD_BYTES
_MAGIC = int.from_bytes(b"PScpOpen", "little")
_LAYOUT_VERSION = 1
_MOST_CLASSES = 8
_FIXED_WORDS = 7
STORE_WORDS = _FIXED_WORDS + 2 * _MOST_CLASSES
"""Magic, layout, parts, first generation, two of a secret, classes; then size and number of each
class."""


@frozen
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


@frozen
class Layout:
    """What the first page says; numbers of bytes and of slots follow from it."""

    parts: int
    first_generation: int
    secret: tuple[int, int]
    classes: tuple[SlotClass, ...]

    @property
    def slots_per_part(self) -> int:
        """Return how many slots a worker hands out."""
        return sum(kind.per_worker for kind in self.classes)

    @property
    def first_start(self) -> int:
        """Return where the content of the first slot is."""
        headers_bytes = self.parts * self.slots_per_part * _HEADER_BYTES
        return mmap.PAGESIZE + -(-headers_bytes // mmap.PAGESIZE) * mmap.PAGESIZE

    @property
    def recent_start(self) -> int:
        """Return where the last renderings are."""
        part_bytes = sum(kind.size_bytes * kind.per_worker for kind in self.classes)
        end = self.first_start + self.parts * part_bytes
        return -(-end // mmap.PAGESIZE) * mmap.PAGESIZE

    @property
    def size_bytes(self) -> int:
        """Return how large the whole is."""
        return self.recent_start + self.parts * TABLE_BYTES

    def words(self) -> array[int]:
        """Return what is to be written to the first page."""
        words = [_MAGIC, _LAYOUT_VERSION, self.parts, self.first_generation, *self.secret]
        words.append(len(self.classes))
        for kind in self.classes:
            words += (kind.size_bytes, kind.per_worker)
        return array("Q", words)

    @classmethod
    def of_words(cls, words: Sequence[int]) -> Layout:
        """Return what `words` has written.

        Raises ProcscopeError where the layout is not known, or makes no sense.
        """
        if tuple(words[:2]) != (_MAGIC, _LAYOUT_VERSION) or words[6] > _MOST_CLASSES:
            raise unknown(WHAT, "their layout is not known")
        pairs = words[_FIXED_WORDS : _FIXED_WORDS + 2 * words[6]]
        classes = tuple(map(SlotClass, pairs[::2], pairs[1::2]))
        layout = cls(words[2], words[3], (words[4], words[5]), classes)
        sizes = [kind.size_bytes for kind in classes]
        sane = (
            0 < layout.parts * layout.slots_per_part <= 1 << SLOT_BITS
            and layout.first_generation < 1 << GENERATION_BITS
            and sizes == sorted(sizes)
            and all(0 < kind.size_bytes <= 1 << 30 and kind.per_worker for kind in classes)
        )
        if not sane:
            raise unknown(WHAT, "their layout makes no sense")
        return layout


def first_word(slot: int) -> int:
    """Return the index of the first word of a slot's header."""
    return FIRST_HEADER_WORD + slot * HEADER_WORDS
