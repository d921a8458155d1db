"""Proves: workers that share contents say the same of them, whoever has them at hand."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from procscope.daemon.handlelayout import VERSION, SlotClass
from procscope.daemon.handles import HandleStore
from procscope.ids import FileHandle

SMALL, LARGE = SlotClass(128, 40), SlotClass(40960, 2)
CLASSES = (SMALL, LARGE)
LARGEST_AT_HAND = 16 << 10
MORE_THAN_AT_HAND = 35
PIECES = ((0, 1 << 20), (0, 1), (1, 3), (100, 100), (127, 9), (1 << 62, 5), (40959, 1 << 40))


def worker(original: HandleStore, part: int) -> HandleStore:
    """Return the store as another process has it."""
    store = HandleStore.adopt(os.dup(original.fd))
    store.adopt_part(part)
    return store


@pytest.fixture
def mine() -> Iterator[HandleStore]:
    store = HandleStore.create(2, CLASSES)
    store.adopt_part(0)
    yield store
    store.close()


@pytest.fixture
def other(mine: HandleStore) -> Iterator[HandleStore]:
    store = worker(mine, 1)
    yield store
    store.close()


@pytest.mark.parametrize(
    "length", [0, 1, 127, 128, 129, LARGEST_AT_HAND, LARGEST_AT_HAND + 1, LARGE.size_bytes]
)
def test_every_worker_reads_the_same_pieces(
    mine: HandleStore, other: HandleStore, length: int
) -> None:
    content = os.urandom(length)
    handle = mine.put(content)
    for offset, size in PIECES:
        for store in (mine, other):
            assert store.read(handle, offset, size) == content[offset : offset + size]


def test_what_a_worker_has_put_itself_is_not_copied(mine: HandleStore, other: HandleStore) -> None:
    content = os.urandom(100)
    handle = mine.put(content)
    assert mine.get(handle) is content
    assert mine.read(handle, 0, 1 << 20) is content
    assert other.get(handle) == content


def test_what_another_worker_replaces_is_new_for_all(mine: HandleStore, other: HandleStore) -> None:
    handle = mine.put(b"of mine")
    assert mine.get(handle) == b"of mine"
    assert other.replace(handle, b"of the other")
    assert mine.get(handle) == other.get(handle) == b"of the other"
    assert mine.replace(handle, b"of mine again")
    assert mine.get(handle) == other.get(handle) == b"of mine again"


def test_while_another_worker_replaces_it_the_older_content_is_not_told(
    mine: HandleStore, other: HandleStore
) -> None:
    """It dies in the middle: nobody knows the content until the next one replaces it."""
    handle = mine.put(b"content")
    word = other._header(handle)
    assert word is not None
    other._words[word + VERSION] += 1
    assert mine.get(handle) is None
    assert mine.read(handle, 2, 3) is None
    assert mine.replace(handle, b"again")
    assert mine.read(handle, 2, 3) == other.read(handle, 2, 3) == b"ain"


def test_what_another_worker_has_released_is_nothing(mine: HandleStore, other: HandleStore) -> None:
    released = mine.put(b"first")
    other.release(released)
    assert mine.get(released) is None
    handles = [mine.put(b"%d" % number) for number in range(SMALL.per_worker)]
    assert all(handles)
    assert mine.get(released) is None
    assert [mine.get(handle) for handle in handles] == [b"%d" % n for n in range(SMALL.per_worker)]


def test_more_are_open_than_are_at_hand(mine: HandleStore) -> None:
    contents = [os.urandom(50) for _ in range(MORE_THAN_AT_HAND)]
    handles = [mine.put(content) for content in contents]
    assert [mine.get(handle) for handle in handles] == contents
    assert mine.get(handles[0]) is not contents[0]
    assert mine.get(handles[-1]) is contents[-1]


def test_a_successor_reads_replaces_and_releases_what_it_has_not_put(mine: HandleStore) -> None:
    kept, released = mine.put(b"kept", opener=7), mine.put(b"released", opener=8)
    successor = worker(mine, 0)
    assert successor.put(b"another", opener=7) == kept
    assert successor.get(kept) == b"kept"
    successor.release(released)
    assert successor.get(released) is None
    assert successor.replace(kept, b"newer")
    assert successor.get(kept) == b"newer"
    new = successor.put(b"new")
    assert new not in (0, kept, released)
    assert successor.get(new) == b"new"
    successor.close()


class Workers(RuleBasedStateMachine):
    """Two workers, each with what it has at hand, and their successors, against a dict."""

    handles = Bundle("handles")

    def __init__(self) -> None:
        super().__init__()
        self.original = HandleStore.create(2, (SlotClass(128, 4), SlotClass(40960, 2)))
        self.workers = [worker(self.original, part) for part in range(2)]
        self.model: dict[FileHandle, bytes] = {}
        self.given: set[FileHandle] = set()

    @rule(part=st.integers(0, 1))
    def succeed(self, part: int) -> None:
        self.workers[part].close()
        self.workers[part] = worker(self.original, part)

    @rule(
        target=handles,
        part=st.integers(0, 1),
        content=st.binary(max_size=130) | st.integers(16000, 17000).map(bytes),
    )
    def put(self, part: int, content: bytes) -> FileHandle:
        handle = self.workers[part].put(content)
        if handle:
            assert handle not in self.given
            self.given.add(handle)
            self.model[handle] = content
        return handle

    @rule(part=st.integers(0, 1), handle=handles, content=st.binary(max_size=130))
    def replace(self, part: int, handle: FileHandle, content: bytes) -> None:
        if self.workers[part].replace(handle, content):
            assert handle in self.model
            self.model[handle] = content
        else:
            self.model.pop(handle, None)

    @rule(part=st.integers(0, 1), handle=consumes(handles))
    def release(self, part: int, handle: FileHandle) -> None:
        self.workers[part].release(handle)
        self.model.pop(handle, None)

    @rule(part=st.integers(0, 1), handle=handles)
    def release_and_keep_the_stale_handle(self, part: int, handle: FileHandle) -> None:
        self.workers[part].release(handle)
        self.model.pop(handle, None)

    @invariant()
    def same_contents(self) -> None:
        for store in self.workers:
            for handle in self.given:
                content = self.model.get(handle)
                assert store.get(handle) == content
                piece = None if content is None else content[2:5]
                assert store.read(handle, 2, 3) == piece
            assert store.in_use() == len(self.model)

    def teardown(self) -> None:
        for store in (*self.workers, self.original):
            store.close()


Workers.TestCase.settings = settings(deadline=None, max_examples=60)
TestWorkers = Workers.TestCase
