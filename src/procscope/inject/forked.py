"""Work in forked children, one for each mount namespace, that cannot keep the caller waiting.

A child that enters a namespace has to have one thread, and may come to wait for a FUSE daemon that
does not answer. It says what it does line by line; what it said counts, whatever becomes of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NoReturn

from procscope.errors import ProcscopeError
from procscope.linux import syscalls

Record = Mapping[str, object]
Tell = Callable[[Record], None]

_CHUNK_BYTES = 1 << 16
_AFTER_KILL_S = 0.2
"""A process that waits for a request which its daemon has read dies only when that answers."""


class Told:
    """What one child has said."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.timed_out = False


class _Child:
    def __init__(self, pid: int, reader: int, deadline_s: float, index: int) -> None:
        self.pid = pid
        self.reader = reader
        self.deadline_s = deadline_s
        self.index = index
        self.told = Told()
        self.text = b""
        self.ended = False

    def read(self) -> None:
        """Take what it has written; at the end of that it is gone."""
        piece = os.read(self.reader, _CHUNK_BYTES)
        if not piece:
            self.ended = True
        *lines, self.text = (self.text + piece).split(b"\n")
        self.told.records += [json.loads(line) for line in lines]

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.told.timed_out = True
        self.deadline_s = time.monotonic() + _AFTER_KILL_S

    def close(self) -> None:
        """Reap it; one that cannot die yet is left to whoever gets our children."""
        os.close(self.reader)
        # Where the caller ignores SIGCHLD there is nothing to reap.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0 if self.ended else os.WNOHANG)


def run_forked(
    jobs: Iterable[Callable[[Tell], None]], *, timeout_s: float, at_once: int = 1
) -> Iterator[tuple[int, Told]]:
    """Run each job in a child of its own, `at_once` at a time.

    Yields (number of the job, what it told) as they end. An error that ends a job is a record
    {"error": text}. A job that takes longer than `timeout_s` is killed.
    """
    waiting = enumerate(jobs)
    running: dict[int, _Child] = {}
    poll = select.poll()
    try:
        while True:
            while len(running) < at_once and (following := next(waiting, None)) is not None:
                child = _start(*following, timeout_s)
                running[child.reader] = child
                poll.register(child.reader, select.POLLIN)
            if not running:
                return
            for child in _wait(poll, running):
                poll.unregister(child.reader)
                del running[child.reader]
                child.close()
                yield child.index, child.told
    finally:
        for child in running.values():
            child.kill()
            child.close()


def _wait(poll: select.poll, running: Mapping[int, _Child]) -> list[_Child]:
    """Wait until a child says something or a deadline passes; return those that are done with."""
    first_s = min(child.deadline_s for child in running.values())
    for reader, _ in poll.poll(max(0.0, first_s - time.monotonic()) * 1000 + 1):
        running[reader].read()
    done = []
    for child in running.values():
        late = time.monotonic() >= child.deadline_s
        if child.ended or (late and child.told.timed_out):
            done.append(child)
        elif late:
            child.kill()
    return done


def _start(index: int, job: Callable[[Tell], None], timeout_s: float) -> _Child:
    reader, writer = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _be_child(job, parent, writer)
    os.close(writer)
    return _Child(pid, reader, time.monotonic() + timeout_s, index)


def _be_child(job: Callable[[Tell], None], parent: int, writer: int) -> NoReturn:
    def tell(record: Record) -> None:
        line = json.dumps(record).encode() + b"\n"
        while line:
            line = line[os.write(writer, line) :]

    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        syscalls.set_pdeathsig(signal.SIGKILL)
        if os.getppid() == parent:
            job(tell)
    except ProcscopeError as error:
        tell({"error": error.message, "hint": error.hint})
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        tell({"error": f"{where}{error.strerror or error}", "hint": ""})
    except BaseException:  # noqa: BLE001 - the process ends here whatever it was
        traceback.print_exc()
        tell({"error": "an error of procscope itself, see its log", "hint": ""})
    finally:
        os._exit(0)
