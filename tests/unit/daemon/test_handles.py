"""Proves: contents of open files are whole and their own, in every worker, until closed."""

from __future__ import annotations

import mmap
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from procscope.daemon.handlelayout import SLOT_CLASSES, SlotClass
from procscope.daemon.handles import HandleStore
from procscope.ids import FileHandle

SMALL, LARGE = SlotClass(128, 4), SlotClass(4096, 2)
CLASSES = (SMALL, LARGE)
SMALL_ROOM, LARGE_ROOM = SMALL.size_bytes, LARGE.size_bytes
SLOTS = SMALL.per_worker + LARGE.per_worker


@pytest.fixture
def store() -> Iterator[HandleStore]:
    """Two workers' parts; this process is worker 0."""
    store = HandleStore.create(2, CLASSES)
    store.adopt_part(0)
    yield store
    store.close()


def in_child(work: Callable[[], object]) -> int:
    """Run `work` in a forked process; return its pid. It ends with status 0 if nothing raised."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return pid


def ended_well(pid: int) -> bool:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize(
    "length", [0, 1, SMALL_ROOM - 1, SMALL_ROOM, SMALL_ROOM + 1, LARGE_ROOM - 1, LARGE_ROOM]
)
def test_a_content_of_any_size_is_kept_whole(store: HandleStore, length: int) -> None:
    content = os.urandom(length)
    neighbours = [store.put(b"n" * 50) for _ in range(2)]
    handle = store.put(content)
    assert handle > 0
    assert store.get(handle) == content
    assert store.replace(handle, content[::-1])
    assert store.get(handle) == content[::-1]
    assert [store.get(one) for one in neighbours] == [b"n" * 50] * 2


def test_a_content_beyond_the_largest_slot_is_not_kept(store: HandleStore) -> None:
    assert store.put(b"x" * (LARGE_ROOM + 1)) == 0
    assert store.in_use() == 0


def test_the_sizes_of_the_daemon_hold_a_file_of_a_large_host() -> None:
    store = HandleStore.create(1, SLOT_CLASSES)
    store.adopt_part(0)
    for length in (0, 4096, 4097, 65536, 65537, 1 << 20):
        handle = store.put(b"x" * length)
        assert store.get(handle) == b"x" * length
    store.close()


def test_few_slots_are_used_though_another_worker_releases_them() -> None:
    """Each slot that was ever used is a page of memory."""
    mine = HandleStore.create(2, SLOT_CLASSES)
    mine.adopt_part(0)
    other = HandleStore.adopt(os.dup(mine.fd))
    other.adopt_part(1)
    before = os.fstat(mine.fd).st_blocks
    for _ in range(1000):
        other.release(mine.put(b"x" * 4096))
    assert os.fstat(mine.fd).st_blocks - before < 100 * 4096 // 512
    for store in (mine, other):
        store.close()


def test_out_of_slots_the_answer_is_0_until_one_is_released(store: HandleStore) -> None:
    handles = [store.put(b"%d" % number) for number in range(SLOTS)]
    assert all(handles)
    assert len(set(handles)) == SLOTS
    assert store.put(b"more") == 0
    assert [store.get(handle) for handle in handles] == [b"%d" % n for n in range(SLOTS)]
    store.release(handles[2])
    again = store.put(b"more")
    assert again not in (0, handles[2])
    assert store.get(again) == b"more"


def test_large_contents_find_room_though_small_slots_are_free(store: HandleStore) -> None:
    assert [bool(store.put(b"x" * LARGE_ROOM)) for _ in range(3)] == [True, True, False]
    assert store.put(b"small")


@pytest.mark.parametrize("handle", [0, 1, 1 << 20, (1 << 20) + 3, (1 << 63) - 1, (1 << 20) - 1])
def test_a_handle_that_was_never_given_is_nothing(store: HandleStore, handle: int) -> None:
    wrong = FileHandle(handle)
    assert store.get(wrong) is None
    assert store.count_read_from_start(wrong) == 0
    assert store.count_read_from_start(wrong) == 0
    assert not store.replace(wrong, b"x")
    store.release(wrong)
    assert store.in_use() == 0


def test_a_stale_handle_is_nothing_to_the_slots_next_user(store: HandleStore) -> None:
    old = store.put(b"old")
    store.release(old)
    handles = [store.put(b"new") for _ in range(SLOTS)]
    assert store.get(old) is None
    assert not store.replace(old, b"bad")
    store.release(old)
    assert [store.get(handle) for handle in handles] == [b"new"] * SLOTS


def test_reads_from_the_start_are_counted_by_file(store: HandleStore) -> None:
    one, other = store.put(b"x"), store.put(b"x")
    assert [store.count_read_from_start(one) for _ in range(3)] == [0, 1, 2]
    assert store.count_read_from_start(other) == 0
    store.release(one)
    again = [store.put(b"x") for _ in range(SMALL.per_worker - 1)]
    assert [store.count_read_from_start(handle) for handle in again] == [0] * len(again)


def test_a_content_that_outgrows_its_slot_is_kept_no_longer(store: HandleStore) -> None:
    """Else whoever keeps the file open would read the old one for ever."""
    handle = store.put(b"x" * SMALL_ROOM)
    assert not store.replace(handle, b"x" * (SMALL_ROOM + 1))
    assert store.get(handle) is None
    assert store.in_use() == 0


def test_any_worker_reads_replaces_and_releases(store: HandleStore) -> None:
    handle, released = store.put(b"of worker 0"), store.put(b"released")

    def worker_1() -> None:
        store.adopt_part(1)
        assert store.get(handle) == b"of worker 0"
        assert store.count_read_from_start(handle) == 0
        assert store.replace(handle, b"of worker 1")
        store.release(released)

    assert ended_well(in_child(worker_1))
    assert store.get(handle) == b"of worker 1"
    assert store.count_read_from_start(handle) == 1
    assert store.get(released) is None
    assert store.in_use() == 1
    # Its owner takes the slot back when it needs it.
    assert all(store.put(b"x") for _ in range(SLOTS - 1))


def test_workers_do_not_take_each_others_slots(store: HandleStore) -> None:
    reader, writer = os.pipe()

    def worker_1() -> None:
        store.adopt_part(1)
        handles = [store.put(b"1") for _ in range(SLOTS)]
        os.write(writer, " ".join(map(str, handles)).encode())

    child = in_child(worker_1)
    own = [store.put(b"0") for _ in range(SLOTS)]
    assert ended_well(child)
    theirs = [FileHandle(int(text)) for text in os.read(reader, 4096).split()]
    os.close(reader)
    os.close(writer)
    assert [store.get(handle) for handle in own] == [b"0"] * SLOTS
    assert [store.get(handle) for handle in theirs] == [b"1"] * SLOTS
    assert store.in_use() == 2 * SLOTS


def test_a_successor_keeps_what_its_predecessor_left_open(store: HandleStore) -> None:
    reader, writer = os.pipe()

    def worker_1() -> None:
        store.adopt_part(1)
        kept, closed = store.put(b"kept"), store.put(b"closed")
        store.release(closed)
        os.write(writer, b"%d" % kept)
        os.kill(os.getpid(), signal.SIGKILL)

    assert not ended_well(in_child(worker_1))
    kept = FileHandle(int(os.read(reader, 99)))
    os.close(reader)
    os.close(writer)

    def successor() -> None:
        store.adopt_part(1)
        assert store.get(kept) == b"kept"
        handles = [store.put(b"new") for _ in range(SLOTS)]
        assert handles.count(FileHandle(0)) == 1
        assert store.get(kept) == b"kept"

    assert ended_well(in_child(successor))
    assert store.get(kept) == b"kept"


def test_a_reader_never_sees_a_mix_while_another_process_replaces(store: HandleStore) -> None:
    length = LARGE_ROOM
    handle = store.put(b"A" * length)

    def writer() -> None:
        for number in range(100_000_000):
            store.replace(handle, b"AB"[number % 2 : number % 2 + 1] * (length - number % 7))

    pid = in_child(writer)
    seen: set[int] = set()
    reads = 0
    try:
        while reads < 20_000 or len(seen) < 2:
            content = store.get(handle)
            reads += 1
            if content is not None:
                assert content.count(content[:1]) == len(content) >= length - 7
                seen.add(content[0])
            assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert seen == set(b"AB")


def test_one_replaces_at_a_time(store: HandleStore) -> None:
    """Several processes replace the same content; each is whole."""
    handle = store.put(b"0" * LARGE_ROOM)

    def writer(byte: bytes) -> Callable[[], None]:
        def work() -> None:
            for _ in range(3000):
                store.replace(handle, byte * LARGE_ROOM)

        return work

    children = [in_child(writer(byte)) for byte in (b"1", b"2", b"3")]
    for _ in range(3000):
        content = store.get(handle)
        assert content is None or content == content[:1] * LARGE_ROOM
    ended = [ended_well(child) for child in children]
    assert all(ended)
    content = store.get(handle)
    assert content is not None
    assert content == content[:1] * LARGE_ROOM
    assert store.replace(handle, b"last")
    assert store.get(handle) == b"last"


def test_a_writer_that_is_killed_leaves_no_mix(store: HandleStore) -> None:
    """The content is whole or nothing, and the slot can be replaced and used again."""
    for attempt in range(25):
        handle = store.put(b"A" * LARGE_ROOM)
        assert handle

        def writer(handle: FileHandle = handle) -> None:
            while True:
                store.replace(handle, b"B" * LARGE_ROOM)
                store.replace(handle, b"A" * LARGE_ROOM)

        pid = in_child(writer)
        for _ in range(random.Random(attempt).randrange(300)):
            store.get(handle)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert store.get(handle) in (None, b"A" * LARGE_ROOM, b"B" * LARGE_ROOM)
        assert store.replace(handle, b"whole")
        assert store.get(handle) == b"whole"
        store.release(handle)
    assert store.in_use() == 0


def test_a_write_that_was_cut_short_is_nothing_until_the_next(store: HandleStore) -> None:
    handle = store.put(b"whole")
    word = store._header(handle)
    assert word is not None
    store._words[word + 4] += 1
    assert store.get(handle) is None
    assert store.replace(handle, b"again")
    assert store.get(handle) == b"again"


def test_memory_that_was_never_written_costs_nothing() -> None:
    """Nor does the search for a free slot, nor that for what a predecessor has left."""
    store = HandleStore.create(4)
    assert os.fstat(store.fd).st_size > 100 << 20
    store.adopt_part(0)
    assert store.kept() == {}
    assert os.fstat(store.fd).st_blocks * 512 <= 2 * mmap.PAGESIZE
    store.adopt_part(3)
    handle = store.put(b"x" * 100)
    assert store.get(handle) == b"x" * 100
    assert os.fstat(store.fd).st_blocks * 512 <= 16 * mmap.PAGESIZE
    assert store.in_use() == 1
    assert os.fstat(store.fd).st_blocks * 512 <= 2 << 20
    store.close()


def test_what_is_left_open_is_found_wherever_it_is() -> None:
    """Among headers of which most were never written."""
    store = HandleStore.create(3)
    store.adopt_part(1)
    sizes = [kind.size_bytes for kind in SLOT_CLASSES]
    few = {opener: store.put(b"x" * size, opener) for opener, size in enumerate(sizes, 1)}
    last = few | {
        opener: store.put(b"x", opener) for opener in range(9, 9 + SLOT_CLASSES[0].per_worker)
    }
    assert all(last.values())
    for opener in range(9, 9 + SLOT_CLASSES[0].per_worker // 2):
        store.release(last.pop(opener))
    store.adopt_part(1)
    assert store.kept() == last
    store.adopt_part(2)
    assert store.kept() == {}
    store.close()


def test_nothing_stays_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    store = HandleStore.create(1, CLASSES)
    store.close()
    assert len(os.listdir("/proc/self/fd")) == before


class HandleMachine(RuleBasedStateMachine):
    """Two workers in one process, against a dict: whoever asks, the answers are the same."""

    handles = Bundle("handles")

    def __init__(self) -> None:
        super().__init__()
        self.store = HandleStore.create(2, CLASSES)
        self.model: dict[FileHandle, bytes] = {}
        self.reads: dict[FileHandle, int] = {}
        self.worker = 0
        self.store.adopt_part(0)

    @rule(worker=st.integers(0, 1))
    def become(self, worker: int) -> None:
        """Another worker goes on, or a successor of the same."""
        self.worker = worker
        self.store.adopt_part(worker)

    @rule(target=handles, content=st.binary(max_size=LARGE_ROOM + 2) | st.binary(max_size=100))
    def put(self, content: bytes) -> FileHandle:
        handle = self.store.put(content)
        if handle:
            assert handle not in self.reads
            self.model[handle] = content
            self.reads[handle] = 0
        return handle

    @rule(handle=handles, content=st.binary(max_size=SMALL_ROOM + 9))
    def replace(self, handle: FileHandle, content: bytes) -> None:
        known = handle in self.model
        if self.store.replace(handle, content):
            assert known
            self.model[handle] = content
        elif known:
            assert len(content) > SMALL_ROOM
            del self.model[handle]

    @rule(handle=handles)
    def count(self, handle: FileHandle) -> None:
        expected = self.reads[handle] if handle in self.model else 0
        assert self.store.count_read_from_start(handle) == expected
        if handle in self.model:
            self.reads[handle] += 1

    @rule(handle=consumes(handles))
    def release(self, handle: FileHandle) -> None:
        self.store.release(handle)
        self.model.pop(handle, None)

    @rule(handle=handles)
    def release_and_keep_the_stale_handle(self, handle: FileHandle) -> None:
        self.store.release(handle)
        self.model.pop(handle, None)

    @invariant()
    def same_contents(self) -> None:
        for handle in self.reads:
            assert self.store.get(handle) == self.model.get(handle)
        assert self.store.in_use() == len(self.model)

    def teardown(self) -> None:
        self.store.close()


HandleMachine.TestCase.settings = settings(deadline=None, max_examples=60)
TestHandleMachine = HandleMachine.TestCase


def test_a_read_that_is_answered_twice_counts_once(store: HandleStore) -> None:
    """A worker dies after its answer, and its successor answers again: nothing is made anew."""
    handle = store.put(b"content")
    assert store.count_read_from_start(handle, 7) == 0
    assert store.count_read_from_start(handle, 7) == 0
    assert store.count_read_from_start(handle, 8) == 1
    assert store.count_read_from_start(handle, 8) == 0
    assert store.count_read_from_start(handle, 9) == 2
