"""The last renderings, for whoever asks for the same within milliseconds, in shared memory.

A container that reads as fast as it can costs a rendering every few milliseconds, not one for each
read. Each worker has a table of its own, which it alone writes, so that no lock is needed; it looks
into those of all. A place in the table belongs to a hash with a secret key, so that nobody chooses
whose place is taken, and a content is given out only for the whole hash that it was noted with.

What is given out is never older than what any worker has given out before, or a counter could go
back. Every worker notes a rendering before it gives it out, with the times at which it began and
ended. The newest one at a place is used only if it began after every other had ended: of two that
were made at the same time nobody can say which is newer, and then a third is made.

A table begins with the headers of its places, 64-bit words, then come the contents:

version   odd while the place is being written
key       two words
began     on the monotonic clock, in nanoseconds
ended     never decreases, whichever container has the place
length    of the content; LARGE where it does not fit
checksum  of content and key: it holds too where a processor shows stores in another order

A worker has what it has given out last at hand as well: while the place has the same version, it
has the same content.
"""

from __future__ import annotations

import mmap
import time
import zlib
from typing import Final

from procscope.digest import blake2b

_PLACES: Final = 64
_PLACE_BYTES: Final = 64 << 10
_HEADER_WORDS: Final = 8
_VERSION, _KEY, _KEY_REST, _BEGAN_NS, _ENDED_NS, _LENGTH, _CHECKSUM = range(7)
_LARGE: Final = _PLACE_BYTES + 1
_HEADERS_BYTES: Final = -(-_PLACES * _HEADER_WORDS * 8 // mmap.PAGESIZE) * mmap.PAGESIZE
TABLE_BYTES: Final = _HEADERS_BYTES + _PLACES * _PLACE_BYTES
_TABLE_WORDS: Final = TABLE_BYTES // 8
_KNOWN_KEYS: Final = 512
_AT_HAND: Final = 32
_AT_HAND_BYTES: Final = 16 << 10
"""So many contents are kept at hand, of this length at most."""
_MOST_VERSION: Final = (1 << 62) - 1

_Key = tuple[int, int]
_AtHand = tuple[int, int, int, tuple[int, ...], bytes]
"""Index of the header, version, begin, and content; before the last, those of the words that say
when renderings at the same place of other tables have ended."""


class RecentRenderings:
    """The tables of all workers, in `memory`; `secret` is the same for all of them."""

    def __init__(self, memory: memoryview, secret: bytes) -> None:
        self._bytes = memory
        self._words = memory.cast("Q")
        self._tables = tuple(range(0, len(memory) // 8, _TABLE_WORDS))
        self._secret = secret
        self._keys: dict[str, _Key] = {}
        self._at_hand: dict[str, _AtHand] = {}

    def close(self) -> None:
        """Let go of the memory."""
        self._words.release()
        self._bytes.release()

    def get(self, name: str, max_age_ns: int) -> bytes | None:
        """Return the last rendering of `name`, if it was begun no longer ago; else None."""
        at_hand = self._at_hand.get(name)
        if at_hand is not None:
            words = self._words
            header, version, began_ns, ends_of_others, content = at_hand
            if words[header + _VERSION] == version and time.monotonic_ns() - began_ns <= max_age_ns:
                for end in ends_of_others:
                    if words[end] > began_ns:
                        break
                else:
                    return content
        return self._find(name, max_age_ns)

    def _find(self, name: str, max_age_ns: int) -> bytes | None:
        """Return the same from the memory that all workers share."""
        key = self._keys.get(name) or self._key(name)
        words = self._words
        at = key[0] % _PLACES * _HEADER_WORDS
        newest_ns, second_ns, newest = -1, -1, 0
        for table in self._tables:
            ended_ns = words[table + at + _ENDED_NS]
            if ended_ns > newest_ns:
                newest_ns, second_ns, newest = ended_ns, newest_ns, table
            elif ended_ns > second_ns:
                second_ns = ended_ns
        header = newest + at
        began_ns, version = words[header + _BEGAN_NS], words[header + _VERSION]
        if time.monotonic_ns() - began_ns > max_age_ns or version % 2 or second_ns > began_ns:
            return None
        length, checksum = words[header + _LENGTH], words[header + _CHECKSUM]
        if (words[header + _KEY], words[header + _KEY_REST]) != key or length > _PLACE_BYTES:
            return None
        start = _start_of(header)
        content = bytes(self._bytes[start : start + length])
        unchanged = words[header + _VERSION] == version and words[header + _ENDED_NS] == newest_ns
        if not unchanged or checksum != _checksum(content, key):
            return None
        self._keep_at_hand(name, header, version, began_ns, content)
        return content

    def note(self, worker: int, name: str, content: bytes, began_ns: int) -> None:
        """Worker number `worker` gives out a rendering that it began at `began_ns`, ended now."""
        key = self._keys.get(name) or self._key(name)
        words = self._words
        header = self._tables[worker] + key[0] % _PLACES * _HEADER_WORDS
        version = words[header + _VERSION] & _MOST_VERSION | 1
        words[header + _VERSION] = version
        words[header + _ENDED_NS] = time.monotonic_ns()
        words[header + _KEY], words[header + _KEY_REST] = key
        words[header + _BEGAN_NS] = began_ns
        words[header + _LENGTH] = min(len(content), _LARGE)
        if len(content) <= _PLACE_BYTES:
            start = _start_of(header)
            self._bytes[start : start + len(content)] = content
            words[header + _CHECKSUM] = _checksum(content, key)
            self._keep_at_hand(name, header, version + 1, began_ns, content)
        words[header + _VERSION] = version + 1

    def _keep_at_hand(
        self, name: str, header: int, version: int, began_ns: int, content: bytes
    ) -> None:
        if len(content) > _AT_HAND_BYTES:
            return
        if len(self._at_hand) >= _AT_HAND:
            self._at_hand.pop(next(iter(self._at_hand)))
        in_table = header % _TABLE_WORDS + _ENDED_NS
        others = (
            table + in_table for table in self._tables if table != header - header % _TABLE_WORDS
        )
        self._at_hand[name] = (header, version, began_ns, tuple(others), content)

    def _key(self, name: str) -> _Key:
        """Return the key of a name that is not among those that are known."""
        if len(self._keys) >= _KNOWN_KEYS:
            self._keys.clear()
        digest = blake2b(name.encode(), key=self._secret, digest_size=16).digest()
        key = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
        self._keys[name] = key
        return key


def _start_of(header: int) -> int:
    """Return where the content begins whose header is at this word."""
    table, word = divmod(header, _TABLE_WORDS)
    return table * TABLE_BYTES + _HEADERS_BYTES + word // _HEADER_WORDS * _PLACE_BYTES


def _checksum(content: bytes, key: _Key) -> int:
    return zlib.crc32(content, key[1] & 0xFFFFFFFF)
