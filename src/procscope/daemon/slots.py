"""Shared memory for the requests that workers have read and not answered yet.

A worker reads each request into a slot. If it dies, or does not answer in time and is killed, its
successor answers what is still there: the kernel would wait for those answers for ever. The memory
also tells which request was being answered, and how many workers it has killed already, so that
one poisonous request cannot take the node down.

One memfd: a page of header, then for each worker a page of control words and its slots. The first
four bytes of a slot, the request's length, are 0 while it is empty. The kernel itself writes the
length with the request, so that there is no moment in which a request is in nobody's books.
"""

from __future__ import annotations

import mmap
import os
from array import array
from struct import Struct
from time import monotonic_ns as _monotonic_ns
from typing import Final

from procscope.daemon.sharedmemory import SharedMemory, read_header, unknown
from procscope.fuse import wire
from procscope.fuse.responder import REQUEST_BUFFER_BYTES
from procscope.ids import CpuId

SLOTS_PER_WORKER: Final = 256
"""How many requests a worker takes at most before it has answered the first of them."""

MEMFD_NAME: Final = "procscope-slots"
"""By which a worker's descriptor of it is known in /proc."""
_MAGIC: Final = int.from_bytes(b"PScpSlot", "little")
_VERSION: Final = 1
_WHAT: Final = "request slots"
_MOST_WORKERS: Final = 4096
_WORD_BYTES: Final = 8
_PAGE_BYTES: Final = mmap.PAGESIZE
_HEADER_WORDS: Final = 5

# The control words of a worker.
_OWNER_PID, _OWNER_START, _CURRENT, _BEGUN_NS, _USED, _QUEUED, _FOLLOWING = range(7)
_FIRST_BLAME: Final = 64
_BLAME_OF_A_CRASH: Final = 64
_CONTROL_WORDS: Final = _FIRST_BLAME + SLOTS_PER_WORKER
_CONTROL_BYTES: Final = -(-_CONTROL_WORDS * _WORD_BYTES // _PAGE_BYTES) * _PAGE_BYTES
_WORKER_BYTES: Final = _CONTROL_BYTES + SLOTS_PER_WORKER * REQUEST_BUFFER_BYTES

_LENGTH_BYTES: Final = 4
_FIRST_LENGTH: Final = _CONTROL_BYTES // _LENGTH_BYTES
_LENGTH_STEP: Final = REQUEST_BUFFER_BYTES // _LENGTH_BYTES
_FUSE_HEADER_BYTES: Final = wire.fuse_in_header.size
_unpack_length: Final = Struct("=I").unpack_from
_NO_LENGTH: Final = bytes(4)
_MOST_COUNT: Final = (1 << 64) - 1


class SlotMemory:
    """The slots of all workers."""

    def __init__(self, memory: SharedMemory, workers: int) -> None:
        """Use `create` or `adopt`."""
        self._memory = memory
        self.workers = workers
        self._parts: dict[int, WorkerSlots] = {}

    @classmethod
    def create(cls, workers: int) -> SlotMemory:
        """Make empty slots for so many workers."""
        size_bytes = _PAGE_BYTES + workers * _WORKER_BYTES
        memory = SharedMemory.create(MEMFD_NAME, size_bytes)
        memory.words[:_HEADER_WORDS] = memoryview(_header(workers))
        return cls(memory, workers)

    @classmethod
    def adopt(cls, fd: int) -> SlotMemory:
        """Use the slots that another process has made; `fd` is then this object's to close.

        Raises ProcscopeError where they are not in the form that this release knows; `fd` stays
        the caller's then.
        """
        header = read_header(fd, _WHAT, _HEADER_WORDS * _WORD_BYTES)
        workers = header[2]
        if not 0 < workers <= _MOST_WORKERS or header.tolist() != _header(workers).tolist():
            raise unknown(_WHAT, "their layout is not known")
        if os.fstat(fd).st_size != _PAGE_BYTES + workers * _WORKER_BYTES:
            raise unknown(_WHAT, "their size is wrong")
        return cls(SharedMemory(fd), workers)

    @property
    def fd(self) -> int:
        """The memfd."""
        return self._memory.fd

    def worker(self, index: int) -> WorkerSlots:
        """Return the slots of worker number `index`."""
        if not 0 <= index < self.workers:
            raise IndexError(f"there is no worker {index}")
        if index not in self._parts:
            start = _PAGE_BYTES + index * _WORKER_BYTES
            self._parts[index] = WorkerSlots(self._memory.bytes[start : start + _WORKER_BYTES])
        return self._parts[index]

    def close(self) -> None:
        """Unmap and close the memory, all `WorkerSlots` of it included."""
        for part in self._parts.values():
            part.close()
        self._memory.close()


class WorkerSlots:
    """The slots of one worker, for itself, its successors, and whoever watches it."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._control = memory[:_CONTROL_BYTES]
        self._words = self._control.cast("Q")
        self._lengths = memory.cast("I")
        starts = range(_CONTROL_BYTES, _WORKER_BYTES, REQUEST_BUFFER_BYTES)
        self.buffers = [memory[start : start + REQUEST_BUFFER_BYTES] for start in starts]
        """Where requests are read to."""
        self._prepared = 0

    def close(self) -> None:
        """Let go of the memory."""
        for view in (*self.buffers, self._lengths, self._words, self._control, self._memory):
            view.release()

    def owner(self) -> tuple[int, int] | None:
        """Return pid and start time (clock ticks since boot) of the worker; None without one."""
        pid = self._words[_OWNER_PID]
        return (pid, self._words[_OWNER_START]) if pid else None

    def set_owner(self, pid: int, start_ticks: int) -> None:
        """The slots belong to this process from now on."""
        self._words[_OWNER_PID] = 0
        self._words[_OWNER_START] = start_ticks
        self._words[_OWNER_PID] = pid

    def clear_owner(self) -> None:
        """The slots belong to nobody."""
        self._words[_OWNER_PID] = 0

    def prepare(self, index: int) -> None:
        """To be called before a request is read into slot `index`.

        What the kernel copies is lost if this process is killed while the kernel waits for a page
        of memory, and the reader gets EIO: the page has to be there before.
        """
        if index < self._prepared:
            return
        self._prepared = index + 1
        if self._words[_USED] <= index:
            self._words[_USED] = index + 1
        self.buffers[index][:4] = _NO_LENGTH

    def begin(self, index: int) -> int:
        """The request in slot `index` is being answered from now on; return `begun_ns`."""
        words = self._words
        words[_BEGUN_NS] = begun_ns = _monotonic_ns()
        words[_CURRENT] = index + 1
        return begun_ns

    def end(self, index: int) -> None:
        """The request in slot `index` is answered: the slot is empty.

        A process that is killed between two of these stores has answered, and its successor does
        it once more: the kernel drops the second answer.
        """
        words = self._words
        words[_FIRST_BLAME + index] = 0
        self._lengths[_FIRST_LENGTH + index * _LENGTH_STEP] = 0
        words[_CURRENT] = 0

    def queued(self, count: int) -> None:
        """So many requests wait for their turn, for `waiting` of other workers."""
        self._words[_QUEUED] = count

    def waiting(self) -> int:
        """Return how many requests waited for their turn when the last of several was begun."""
        return self._words[_QUEUED]

    def set_following(self, cpu: CpuId | None) -> None:
        """This worker follows a reader, now on this CPU; None: it follows none."""
        self._words[_FOLLOWING] = 0 if cpu is None else cpu + 1

    def following(self) -> CpuId | None:
        """Return what `set_following` was told last."""
        word = self._words[_FOLLOWING]
        return CpuId(word - 1) if word else None

    def pending(self) -> list[int]:
        """Return the slots that hold a request."""
        return [index for index in range(self._used()) if self.header(index) is not None]

    def header(self, index: int) -> dict[str, int] | None:
        """Return the header of the request in slot `index`; None without one."""
        (length,) = _unpack_length(self.buffers[index])
        if not _FUSE_HEADER_BYTES <= length <= REQUEST_BUFFER_BYTES:
            return None
        return wire.fuse_in_header.unpack(self.buffers[index])

    def current(self) -> int | None:
        """Return the slot whose request is being answered; None without one."""
        index = self._words[_CURRENT] - 1
        return index if 0 <= index < len(self.buffers) else None

    def begun_ns(self) -> int:
        """Return when the last request was begun, on the monotonic clock."""
        return self._words[_BEGUN_NS]

    def deaths(self, index: int) -> int:
        """Return how many workers the request in slot `index` has killed."""
        return self._words[_FIRST_BLAME + index] // _BLAME_OF_A_CRASH

    def count_death(self) -> None:
        """The worker has died: whatever it was answering counts one death, once."""
        self._blame(_BLAME_OF_A_CRASH)

    def count_kill(self) -> None:
        """The worker was killed by somebody else, or nobody knows: that may be so by chance.

        Many such kills count a death, since the kernel kills who runs out of memory alike.
        """
        self._blame(1)

    def _blame(self, points: int) -> None:
        index = self.current()
        self._words[_CURRENT] = 0
        if index is not None and self.header(index) is not None:
            blame = self._words[_FIRST_BLAME + index] + points
            self._words[_FIRST_BLAME + index] = min(blame, _MOST_COUNT)

    def _used(self) -> int:
        return min(self._words[_USED], len(self.buffers))


def _header(workers: int) -> array[int]:
    return array("Q", (_MAGIC, _VERSION, workers, SLOTS_PER_WORKER, REQUEST_BUFFER_BYTES))
