"""Children that try what changes a process for good."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

from tests.integration.agents import fork

T = TypeVar("T")


def outcome_of(function: Callable[[], T]) -> T:
    """Run a function in a child, and return what it returns; EOFError where it raises."""
    reader, writer = os.pipe()
    pid = fork()
    if pid == 0:
        try:
            os.write(writer, pickle.dumps(function()))
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        told = file.read()
    os.waitpid(pid, 0)
    return cast("T", pickle.loads(told))


@contextmanager
def child_that(prepare: Callable[[], object]) -> Iterator[int]:
    """A child that has run `prepare`, and waits; its pid."""
    reader, writer = os.pipe()
    pid = fork()
    if pid == 0:
        try:
            prepare()
            os.write(writer, b"\0")
            signal.pause()
        finally:
            os._exit(1)
    os.close(writer)
    try:
        assert os.read(reader, 1), "it has failed"
        yield pid
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
