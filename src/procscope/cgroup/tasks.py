"""The processes and threads of a cgroup and of everything below it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice

from procscope.cgroup.files import RUN_OUT, CgroupDirectory, FileBudget, open_for_reading
from procscope.cgroup.parsers import parse_pids
from procscope.ids import Pid

_CHUNK_BYTES = 1 << 16
_LINKS_OF_A_LEAF = 2
"""kernfs counts a directory's subdirectories in its links, as most filesystems do."""


def iterate_tasks(
    directory: CgroupDirectory, file_name: str, limit: int | None = None
) -> Iterator[Pid]:
    """Yield the ids in `file_name` of the cgroup and of those below it, each once.

    At most `limit`, and no more cgroups are read than that takes. A cgroup below that vanishes
    meanwhile is left out. Raises CgroupGone where `directory` itself is gone, and OSError where
    this process has run out of descriptors or memory.
    """
    tasks = _unique(_all_tasks(directory, file_name))
    return tasks if limit is None else islice(tasks, max(0, limit))


def _unique(pids: Iterator[Pid]) -> Iterator[Pid]:
    """A task that moves during the walk, or a v1 process in two cgroups, is seen twice."""
    seen: set[Pid] = set()
    for pid in pids:
        if pid not in seen:
            seen.add(pid)
            yield pid


def _all_tasks(directory: CgroupDirectory, file_name: str) -> Iterator[Pid]:
    directory.check()
    waiting = [directory.path]
    while waiting:
        path = waiting.pop()
        yield from parse_pids(_read_to_the_end(f"{path}/{file_name}", directory.budget))
        waiting.extend(_subdirectories(path))


def _read_to_the_end(path: str, budget: FileBudget) -> bytes:
    """Return the file, empty where it cannot be read.

    Raises OSError where this process has run out of something: nobody is not the same as unknown.
    A list of ids comes in pieces that end early, so that only an empty read is the end. v2
    refuses `cgroup.procs` in a threaded cgroup (EOPNOTSUPP): its domain's lists them.
    """
    try:
        fd = open_for_reading(path, budget)
    except OSError as error:
        if error.errno in RUN_OUT:
            raise
        return b""
    pieces: list[bytes] = []
    try:
        while piece := os.read(fd, _CHUNK_BYTES):
            pieces.append(piece)
    except OSError:
        return b"".join(pieces)
    finally:
        os.close(fd)
    return b"".join(pieces)


def _subdirectories(path: str) -> list[str]:
    try:
        if os.stat(path).st_nlink == _LINKS_OF_A_LEAF:
            return []
        with os.scandir(path) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
