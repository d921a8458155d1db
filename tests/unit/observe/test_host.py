"""Proves: the host's files are read whole, seldom, and fresh when it is time."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from procscope.daemon.recent import TABLE_BYTES, RecentRenderings
from procscope.observe.host import MOVING_NS, HostFiles, read_whole
from procscope.observe.hostmemory import HostMemoryFile
from tests.unit.containers.fakeproc import open_below

WORKERS = 3


def put(root: Path, name: str, content: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def test_a_snapshot_serves_until_it_is_too_old(tmp_path: Path) -> None:
    host = HostFiles(str(tmp_path), str(tmp_path))
    path = put(tmp_path, "stat", "first\n")
    assert host.read_proc("stat") == b"first\n"
    path.write_text("second, and longer\n")
    assert host.read_proc("stat", max_age_ns=1 << 60) == b"first\n"
    assert host.read_proc("stat", max_age_ns=-1) == b"second, and longer\n"
    assert open_below(tmp_path) == [str(path)]
    host.close()
    assert open_below(tmp_path) == []


@pytest.mark.parametrize("length", [0, 1, 4095, 4096, 4097, 300_000])
def test_a_file_of_any_length_is_whole(tmp_path: Path, length: int) -> None:
    host = HostFiles(str(tmp_path), str(tmp_path))
    put(tmp_path, "cpuinfo", "x" * length)
    assert host.read_proc("cpuinfo") == b"x" * length
    assert host.read_proc("cpuinfo", max_age_ns=-1) == b"x" * length
    host.close()


def test_a_read_does_not_depend_on_where_the_file_stands(tmp_path: Path) -> None:
    path = put(tmp_path, "x", "abcdef")
    fd = os.open(path, os.O_RDONLY)
    os.lseek(fd, 3, os.SEEK_SET)
    assert read_whole(fd, 2) == b"abcdef"
    os.close(fd)


def test_online_cpus_follow_hotplug(tmp_path: Path) -> None:
    host = HostFiles(str(tmp_path), str(tmp_path))
    path = put(tmp_path, "devices/system/cpu/online", "0-2,5\n")
    assert host.online_cpus() == (0, 1, 2, 5)
    path.write_text("0\n")
    host.close()
    assert host.online_cpus() == (0,)
    host.close()


@pytest.mark.parametrize("content", [None, "", "x\n", "\u0663x"])
def test_an_overcommit_ratio_that_is_none_is_the_kernels_default(
    tmp_path: Path, content: str | None
) -> None:
    host = HostFiles(str(tmp_path), str(tmp_path))
    if content is not None:
        put(tmp_path, "sys/vm/overcommit_ratio", content)
    assert host.overcommit_ratio() == 50
    host.close()


def test_the_overcommit_ratio(tmp_path: Path) -> None:
    host = HostFiles(str(tmp_path), str(tmp_path))
    put(tmp_path, "sys/vm/overcommit_ratio", "80\n")
    assert host.overcommit_ratio() == 80
    host.close()


def test_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    host = HostFiles(str(tmp_path), str(tmp_path))
    with pytest.raises(FileNotFoundError):
        host.read_proc("schedstat")
    with pytest.raises(FileNotFoundError):
        host.online_cpus()
    host.close()


@pytest.fixture
def store() -> Iterator[RecentRenderings]:
    with closing(RecentRenderings(memoryview(bytearray(WORKERS * TABLE_BYTES)), b"s" * 16)) as one:
        yield one


class PartOf:
    """One worker's part of a store."""

    def __init__(self, store: RecentRenderings, worker: int) -> None:
        self._store = store
        self._worker = worker

    def recent(self, name: str, max_age_ns: int) -> bytes | None:
        return self._store.get(name, max_age_ns)

    def note(self, name: str, content: bytes, began_ns: int) -> None:
        self._store.note(self._worker, name, content, began_ns)


class Workers:
    """Workers of one host, whose `stat` counts up in a file of some length."""

    def __init__(self, root: Path, store: RecentRenderings, length: int = 20) -> None:
        self._path = put(root, "stat", "")
        self._length = length
        self.count = 0
        self.tick()
        self.hosts = [
            HostFiles(str(root), str(root), shared=PartOf(store, worker))
            for worker in range(WORKERS)
        ]

    def tick(self) -> None:
        self.count += 1
        self._path.write_text(f"{self.count}".rjust(self._length))

    def read(self, worker: int, max_age_ns: int = MOVING_NS) -> int:
        return int(self.hosts[worker].read_proc("stat", max_age_ns=max_age_ns))

    def close(self) -> None:
        for host in self.hosts:
            host.close()


STEPS = st.lists(
    st.tuples(st.integers(0, WORKERS - 1), st.booleans(), st.integers(0, 2 * MOVING_NS))
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, length=st.sampled_from([20, 64 << 10, (64 << 10) + 1]))
def test_no_worker_uses_what_is_older_than_what_another_has_used(
    tmp_path: Path, steps: list[tuple[int, bool, int]], length: int
) -> None:
    """Also of a file that is too long to be shared: each has it anew then."""
    now_ns = 1 << 40
    used = 0
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(time, "monotonic_ns", lambda: now_ns)
        store = RecentRenderings(memoryview(bytearray(WORKERS * TABLE_BYTES)), b"s" * 16)
        with closing(store), closing(Workers(tmp_path, store, length)) as workers:
            for worker, moves, passes_ns in steps:
                if moves:
                    workers.tick()
                now_ns += 1 + passes_ns
                found = workers.read(worker)
                assert used <= found <= workers.count
                used = found


def test_a_snapshot_serves_all_workers(tmp_path: Path, store: RecentRenderings) -> None:
    with closing(Workers(tmp_path, store)) as workers:
        first = workers.read(0)
        workers.tick()
        # As long as nobody has looked anew, however long that is here.
        assert store.get(f"{tmp_path}/stat", 1 << 60) == str(first).rjust(20).encode()
        assert workers.read(1, max_age_ns=-1) == first + 1


def test_what_is_kept_open_is_read_without_descriptors(tmp_path: Path) -> None:
    host = HostFiles(str(tmp_path), str(tmp_path))
    put(tmp_path, "stat", "cpu 1\n")
    put(tmp_path, "devices/system/cpu/online", "0-1\n")
    host.keep_open(("stat", "not/there"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        assert host.read_proc("stat") == b"cpu 1\n"
        assert host.online_cpus() == (0, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        host.close()


def test_memory_that_is_equal_is_the_same_object() -> None:
    """What was made of it is found to be good by a look at its address."""
    text = b"MemTotal: 100 kB\nMemFree: %d kB\nSwapTotal: %d kB\n"
    texts = iter([text % (1, 0), text % (2, 0), text % (2, 8), text % (3, 8)])
    ratios = iter([50, 50, 50, 60])
    file = HostMemoryFile(
        lambda: next(texts), lambda: next(ratios), look_every_ns=-1, parse_every_ns=-1
    )
    told = [file.now() for _ in range(4)]
    assert told[0] is told[1]
    assert [memory.swap_total_bytes for memory, _ in told] == [0, 0, 8192, 8192]
    assert [ratio for _, ratio in told] == [50, 50, 50, 60]
