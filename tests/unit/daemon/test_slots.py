"""Proves: what a worker has read and not answered is found by its successor, once each."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.daemon.slots import SLOTS_PER_WORKER, SlotMemory, WorkerSlots
from procscope.errors import ProcscopeError
from procscope.fuse import opcodes
from procscope.fuse.responder import REQUEST_BUFFER_BYTES
from procscope.ids import CpuId
from tests.unit.fuse.memory import request

WORKERS = 2


@pytest.fixture
def memory() -> Iterator[SlotMemory]:
    memory = SlotMemory.create(WORKERS)
    yield memory
    memory.close()


def adopted(memory: SlotMemory) -> SlotMemory:
    """The same memory as another process gets it."""
    return SlotMemory.adopt(os.dup(memory.fd))


def read_into(slots: WorkerSlots, index: int, unique: int = 7) -> None:
    """What the kernel does."""
    content = request(opcodes.FUSE_STATFS, unique=unique)
    slots.prepare(index)
    slots.buffers[index][: len(content)] = content


def test_a_request_waits_until_it_is_answered(memory: SlotMemory) -> None:
    slots = memory.worker(1)
    assert slots.pending() == []
    for index in (0, 1, 2):
        read_into(slots, index, unique=index + 1)
    slots.begin(1)
    successor = adopted(memory)
    theirs = successor.worker(1)
    assert (theirs.pending(), theirs.current()) == ([0, 1, 2], 1)
    headers = [theirs.header(index) for index in theirs.pending()]
    assert [header and header["unique"] for header in headers] == [1, 2, 3]
    slots.end(1)
    assert (theirs.pending(), theirs.current()) == ([0, 2], None)
    assert successor.worker(0).pending() == []
    successor.close()


def test_every_slot_holds_a_whole_request(memory: SlotMemory) -> None:
    content = [bytes([index]) * REQUEST_BUFFER_BYTES for index in range(SLOTS_PER_WORKER)]
    for index, buffer in enumerate(memory.worker(0).buffers):
        buffer[:] = content[index]
    assert [bytes(buffer) for buffer in memory.worker(0).buffers] == content
    assert memory.worker(1).pending() == []


def test_only_the_request_that_was_being_answered_counts_a_death(memory: SlotMemory) -> None:
    slots = memory.worker(0)
    for index in (0, 1):
        read_into(slots, index)
    slots.begin(0)
    slots.end(0)
    read_into(slots, 0)
    for deaths in (1, 2, 3):
        slots.begin(1)
        slots.count_death()
        slots.count_death()
        assert (slots.deaths(0), slots.deaths(1)) == (0, deaths)
    slots.begin(1)
    slots.end(1)
    assert slots.deaths(1) == 0


def test_a_worker_that_died_after_its_answer_has_not_been_killed_by_a_request(
    memory: SlotMemory,
) -> None:
    slots = memory.worker(0)
    read_into(slots, 0)
    slots.begin(0)
    slots.buffers[0][:4] = bytes(4)
    slots.count_death()
    assert (slots.current(), slots.deaths(0)) == (None, 0)


def test_its_owner_is_told_to_whoever_looks(memory: SlotMemory) -> None:
    slots = memory.worker(1)
    assert slots.owner() is None
    slots.set_owner(123, 456789)
    other = adopted(memory)
    assert other.worker(1).owner() == (123, 456789)
    assert other.worker(0).owner() is None
    other.worker(1).clear_owner()
    assert slots.owner() is None
    other.close()


@given(cpus=st.lists(st.none() | st.integers(0, 8191).map(CpuId), min_size=1, max_size=4))
def test_where_a_worker_follows_is_told_to_whoever_looks(cpus: list[CpuId | None]) -> None:
    """CPU 0 is one as any other."""
    memory = SlotMemory.create(WORKERS)
    slots, other = memory.worker(1), adopted(memory)
    assert slots.following() is None
    for cpu in cpus:
        slots.set_following(cpu)
        assert (slots.following(), other.worker(1).following()) == (cpu, cpu)
        assert other.worker(0).following() is None
    other.close()
    memory.close()


def test_memory_that_was_never_used_costs_nothing(memory: SlotMemory) -> None:
    """Nor does the search for what waits."""
    read_into(memory.worker(0), 0)
    for index in range(WORKERS):
        memory.worker(index).pending()
    assert os.fstat(memory.fd).st_size > WORKERS * SLOTS_PER_WORKER * REQUEST_BUFFER_BYTES
    assert os.fstat(memory.fd).st_blocks * 512 <= 4 * mmap.PAGESIZE


def test_there_are_no_other_workers(memory: SlotMemory) -> None:
    for index in (-1, WORKERS):
        with pytest.raises(IndexError):
            memory.worker(index)


def test_nothing_stays_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    memory = SlotMemory.create(1)
    memory.worker(0)
    memory.close()
    assert len(os.listdir("/proc/self/fd")) == before


@given(changes=st.dictionaries(st.integers(0, 39), st.integers(0, 255), min_size=1))
def test_a_header_that_is_not_known_is_refused_and_any_other_is_used(
    changes: dict[int, int],
) -> None:
    memory = SlotMemory.create(WORKERS)
    before = os.pread(memory.fd, 40, 0)
    header = bytearray(before)
    for offset, value in changes.items():
        header[offset] = value
    os.pwrite(memory.fd, header, 0)
    fd = os.dup(memory.fd)
    if header == before:
        SlotMemory.adopt(fd).close()
    else:
        with pytest.raises(ProcscopeError, match="request slots"):
            SlotMemory.adopt(fd)
        os.close(fd)
    memory.close()


@given(garbage=st.binary(min_size=1, max_size=600), at=st.integers(0, 700))
def test_garbage_in_a_workers_memory_is_survived(garbage: bytes, at: int) -> None:
    memory = SlotMemory.create(1)
    os.pwrite(memory.fd, garbage, mmap.PAGESIZE + at * 8)
    slots = memory.worker(0)
    slots.owner()
    slots.following()
    slots.count_death()
    assert slots.current() is None
    for index in slots.pending():
        assert slots.header(index) is not None
        slots.begin(index)
        slots.end(index)
    assert slots.pending() == []
    memory.close()


def test_what_is_no_memory_of_slots_is_refused() -> None:
    empty = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    reader, writer = os.pipe()
    for fd in (empty, reader, writer):
        with pytest.raises(ProcscopeError, match="request slots"):
            SlotMemory.adopt(fd)
        os.close(fd)


def test_kills_by_somebody_else_are_no_crashes_but_many_of_them_are_one(
    memory: SlotMemory,
) -> None:
    """Whoever kills workers must not make their readers get anything but their own files."""
    slots = memory.worker(0)
    read_into(slots, 0)
    seen = []
    for _ in range(70):
        slots.begin(0)
        slots.count_kill()
        slots.count_death()
        seen.append(slots.deaths(0))
    assert seen[0] == 0
    assert seen[-1] == 1
    assert seen == sorted(seen)
