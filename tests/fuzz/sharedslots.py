"""Targets: memory that a predecessor has left, the slots of requests and of open files' contents.

The first byte of an input says whether the rest is the whole memory, or what stands in the control
words and slots of one that is otherwise in order.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

from procscope.daemon.handlelayout import SlotClass
from procscope.daemon.handles import HandleStore
from procscope.daemon.recent import TABLE_BYTES, RecentRenderings
from procscope.daemon.slots import SlotMemory, WorkerSlots
from procscope.daemon.worker import answer_left_over
from procscope.errors import ProcscopeError
from procscope.fuse.replies import Reply
from procscope.fuse.responder import RequestHandler, Responder
from procscope.ids import FileHandle
from tests.fuzz.checks import require
from tests.fuzz.requests import FILESYSTEM, SESSION, check_reply

_PAGE = os.sysconf("SC_PAGE_SIZE")
_CLASSES = (SlotClass(256, 4), SlotClass(4096, 2))
_ROOM = (256,) * 4 + (4096,) * 2
_GENERATION_SHIFT = 20
_HEADER_WORDS = 8
_LOOKED_AT_SLOTS = 4
_MOST_DEATHS = ((1 << 64) - 1) // 64
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def _raw(data: bytes, adopt: Callable[[int], SlotMemory | HandleStore]) -> None:
    """A memfd of these bytes alone is refused with the one error, or is in order."""
    fd = os.memfd_create("procscope-fuzz", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.write(fd, data)
        if data[:1] != b"\0":
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        adopted = adopt(fd)
    except ProcscopeError:
        os.close(fd)
        return
    adopted.close()


@cache
def _requests() -> SlotMemory:
    return SlotMemory.create(1)


def slots(data: bytes) -> None:
    """Control words and requests of a dead worker: its successor finds its way, and answers."""
    kind, data = data[:1], data[1:]
    if kind == b"\0":
        _raw(data, SlotMemory.adopt)
        return
    memory = _requests()
    control, requests = data[: _PAGE // 2], data[_PAGE // 2 :]
    os.pwrite(memory.fd, control, _PAGE)
    try:
        left = SlotMemory.adopt(os.dup(memory.fd))
        try:
            worker = left.worker(0)
            for index in range(_LOOKED_AT_SLOTS):
                request = requests[index * 256 :][:256].ljust(256, b"\0")
                worker.buffers[index][:256] = request
            _succeed(worker)
            worker.prepare(0)
        finally:
            left.close()
    finally:
        os.pwrite(memory.fd, bytes(_PAGE), _PAGE)


@contextmanager
def _for_host() -> Iterator[RequestHandler]:
    yield SESSION


def _succeed(worker: WorkerSlots) -> None:
    """What a successor does: count the death, and answer all that is pending."""
    worker.owner()
    worker.begun_ns()
    current = worker.current()
    deaths = {index: worker.deaths(index) for index in worker.pending()}
    if current in deaths:
        deaths[current] = min(deaths[current] + 1, _MOST_DEATHS)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        responder = Responder(theirs.fileno(), _Watched(deaths, worker), worker)
        answer_left_over(worker, responder, _for_host)
    require(not worker.pending(), "something is left")
    require(worker.current() is None, "a dead worker still works")
    require(all(worker.deaths(index) == 0 for index in deaths), "deaths of an empty slot")
    FILESYSTEM.calls.clear()


class _Watched:
    """A session whose answer to each request is one that the kernel takes."""

    def __init__(self, deaths: dict[int, int], worker: WorkerSlots) -> None:
        self._deaths = deaths
        self._worker = worker

    def handle(self, request: memoryview) -> Reply:
        """The session's reply, checked; only for what has killed fewer than two workers."""
        current = self._worker.current()
        require(current in self._deaths, "an answer to what was not asked")
        assert current is not None
        require(self._deaths[current] < 2, "a poisonous request is answered as any other")
        reply = SESSION.handle(request)
        check_reply(bytes(request), reply)
        return reply


@cache
def _contents() -> HandleStore:
    return HandleStore.create(2, _CLASSES)


def handles(data: bytes) -> None:
    """Headers of contents that say anything: no error, and no handle shows beyond its slot."""
    kind, data = data[:1], data[1:]
    if kind == b"\0":
        _raw(data, HandleStore.adopt)
        return
    original = _contents()
    headers = data[: 2 * len(_ROOM) * _HEADER_WORDS * 8]
    os.pwrite(original.fd, headers, _PAGE)
    try:
        store = HandleStore.adopt(os.dup(original.fd))
        try:
            store.adopt_part(1)
            _use(store, headers)
        finally:
            store.close()
    finally:
        os.pwrite(original.fd, bytes(_PAGE), _PAGE)


def _use(store: HandleStore, headers: bytes) -> None:
    store.in_use()
    for slot, room in enumerate(_ROOM * 2):
        generation = headers[slot * _HEADER_WORDS * 8 + 8 :][:8]
        number = int.from_bytes(generation, "little")
        handle = FileHandle(number << _GENERATION_SHIFT | slot)
        content = store.get(handle)
        require(content is None or len(content) <= room, "beyond its slot")
        piece = None if content is None else content[3:8]
        require(store.read(handle, 3, 5) == piece, "a piece of something else")
        store.count_read_from_start(handle)
        if store.replace(handle, b"new"):
            require(store.get(handle) == b"new", "not what was put there")
        store.release(handle)
        require(store.get(handle) is None, "still there after its release")
    store.settle()
    for content in (b"small", b"l" * 1000):
        handle = store.put(content, opener=7)
        require(not handle or store.get(handle) == content, "not what was kept")
        require(handle < 1 << 63, "a handle that the kernel cannot have")
        store.release(handle)


_NAME = "key/meminfo"
_HEADER_BYTES = _HEADER_WORDS * 8


@cache
def _tables() -> tuple[RecentRenderings, memoryview]:
    memory = memoryview(bytearray(2 * TABLE_BYTES))
    return RecentRenderings(memory, bytes(16)), memory


def recent(data: bytes) -> None:
    """Headers of the last renderings that say anything: nothing is told, or what was noted.

    The first byte says for which of the two tables the key and the times are made right.
    """
    renderings, memory = _tables()
    key = renderings._key(_NAME)
    at = key[0] % 64 * _HEADER_BYTES
    headers = data[1:].ljust(2 * _HEADER_BYTES, b"\0")
    for table in range(2):
        header = headers[table * _HEADER_BYTES :][:_HEADER_BYTES]
        if data[:1] and data[0] >> table & 1:
            now_ns = time.monotonic_ns()
            header = header[:8] + struct.pack("=4Q", *key, now_ns, now_ns) + header[40:]
        memory[table * TABLE_BYTES + at :][:_HEADER_BYTES] = header
    told = renderings.get(_NAME, 10**9)
    require(told is None or len(told) <= 64 << 10, "more than a place holds")
    renderings.note(0, _NAME, b"new", time.monotonic_ns())
    require(renderings.get(_NAME, 10**9) in (None, b"new"), "not what was noted")
