"""Processes and threads: stopped by a signal, or seen to wait for an answer."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.waiting import eventually


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that does nothing meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        eventually(lambda: state_of(pid) == "T")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def state_of(task: int) -> str:
    """The state of a process or thread, as in `/proc/PID/stat`."""
    return Path(f"/proc/{task}/stat").read_text().rpartition(")")[2].split()[0]


def threads_of(pid: int) -> list[int]:
    """Every thread of a process."""
    return [int(name) for name in os.listdir(f"/proc/{pid}/task")]


def is_waiting_for(task: int, path: str) -> bool:
    """Whether a thread sleeps in a system call with this path: open(2) has it first or second."""
    words = Path(f"/proc/{task}/syscall").read_text().split()
    if state_of(task) != "S" or words[0] == "running":
        return False
    with open(f"/proc/{task}/mem", "rb", buffering=0) as memory:
        for address in (int(word, 16) for word in words[1:3]):
            try:
                found = os.pread(memory.fileno(), len(path) + 1, address)
            except (OSError, OverflowError):
                continue
            if found == os.fsencode(path) + b"\0":
                return True
    return False


def wait_in_open(pid: int, path: str, count: int) -> None:
    """Wait until so many threads of a process wait for the answer to their open(2) of `path`."""
    eventually(lambda: sum(is_waiting_for(task, path) for task in threads_of(pid)) == count)
