"""Proves: what a record was told survives, what is damaged is nothing, one at a time writes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from procscope.cgroup.files import CgroupGone, FileBudget
from procscope.ids import CgroupPath
from procscope.linux import syscalls
from procscope.observe.records import Record, RecordIdentity, RecordStore
from tests.unit.containers.fakeproc import open_below

IDENTITY = RecordIdentity({"": CgroupPath("/docker/x"), "memory": CgroupPath("/a b")}, 4711)
LEDGER_OFFSET = 1 << 20
NO_FIXTURE_RESET = [HealthCheck.function_scoped_fixture]


@pytest.fixture
def store(tmp_path: Path) -> RecordStore:
    return RecordStore(str(tmp_path / "state"))


@pytest.fixture
def record(store: RecordStore) -> Iterator[Record]:
    record = store.open("one")
    yield record
    record.close()


def blocks(record: Record) -> tuple[RecordIdentity | None, bytes | None, bytes | None]:
    return record.read_identity(), record.read_load(), record.read_ledger()


def test_a_new_record_says_nothing(record: Record) -> None:
    assert blocks(record) == (None, None, None)


def test_all_blocks_survive_and_do_not_touch_each_other(store: RecordStore) -> None:
    record = store.open("one")
    record.write_ledger(b"ledger" * 5000)
    record.write_identity(IDENTITY)
    record.write_load(b"load")
    record.close()
    again = store.open_existing("one")
    assert again is not None
    assert blocks(again) == (IDENTITY, b"load", b"ledger" * 5000)
    again.close()


def test_an_identity_of_many_long_paths_has_room(record: Record) -> None:
    """14 hierarchies with paths of PATH_MAX in which each byte is escaped."""
    path = CgroupPath("/" + "\udcff" * 4094)
    identity = RecordIdentity({f"controller{number}": path for number in range(14)}, 1)
    record.write_load(b"load")
    record.write_ledger(b"ledger")
    record.write_identity(identity)
    assert blocks(record) == (identity, b"load", b"ledger")


def test_a_shorter_block_replaces_a_longer_one(record: Record) -> None:
    record.write_ledger(b"x" * 9000)
    record.write_ledger(b"y")
    assert record.read_ledger() == b"y"


def test_a_record_takes_little_space(record: Record, tmp_path: Path) -> None:
    record.write_identity(IDENTITY)
    record.write_load(b"load")
    record.write_ledger(b"ledger")
    assert (tmp_path / "state" / "one").stat().st_blocks * 512 <= 4 * 4096


def test_nobody_else_may_read_the_state(record: Record, tmp_path: Path) -> None:
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "state" / "one").stat().st_mode) == 0o600


@settings(deadline=None, suppress_health_check=NO_FIXTURE_RESET)
@given(
    payload=st.binary(min_size=1, max_size=300),
    place=st.integers(min_value=0),
    change=st.integers(1, 255),
)
def test_a_block_with_any_changed_byte_is_nothing(
    tmp_path: Path, payload: bytes, place: int, change: int
) -> None:
    path = tmp_path / "record"
    path.unlink(missing_ok=True)
    record = Record(str(path), create=True)
    record.write_ledger(payload)
    raw = bytearray(path.read_bytes())
    begin = LEDGER_OFFSET
    raw[begin + place % (len(payload) + 8)] ^= change
    path.write_bytes(raw)
    assert record.read_ledger() is None
    record.close()


@settings(deadline=None, suppress_health_check=NO_FIXTURE_RESET)
@given(payload=st.binary(min_size=1, max_size=9000), kept=st.integers(min_value=0))
def test_a_block_that_was_cut_is_nothing(tmp_path: Path, payload: bytes, kept: int) -> None:
    path = tmp_path / "record"
    path.unlink(missing_ok=True)
    record = Record(str(path), create=True)
    record.write_ledger(payload)
    os.truncate(path, LEDGER_OFFSET + kept % (len(payload) + 8))
    assert record.read_ledger() is None
    record.close()


@settings(deadline=None, suppress_health_check=NO_FIXTURE_RESET)
@given(content=st.binary(max_size=64), offset=st.sampled_from([0, 4096, LEDGER_OFFSET]))
def test_a_file_of_garbage_is_an_empty_record(tmp_path: Path, content: bytes, offset: int) -> None:
    path = tmp_path / "record"
    path.write_bytes(b"\0" * offset + content)
    record = Record(str(path), create=False)
    assert blocks(record) == (None, None, None)
    record.close()


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "1",
        '"x"',
        "{}",
        '{"cgroups": []}',
        '{"cgroups": {}, "birth_ticks": "x"}',
        '{"cgroups": {}, "birth_ticks": null}',
        '{"cgroups": {}, "birth_ticks": 1e999}',
        "[" * 3000,
    ],
)
def test_an_identity_of_another_form_is_none(record: Record, text: str) -> None:
    record._write(4096, text.encode())
    assert record.read_identity() is None


def test_only_one_process_writes_the_ledger(store: RecordStore, record: Record) -> None:
    """While another process holds it, the lock says No in bounded time; then it is free again."""
    holds_reader, holds_writer = os.pipe()
    done_reader, done_writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        other = store.open("one")
        with other.ledger_lock() as locked:
            os.write(holds_writer, b"+" if locked else b"-")
            os.close(done_writer)
            os.read(done_reader, 1)
            # Killed in the middle: the kernel frees the lock.
            os._exit(0)
    os.close(done_reader)
    assert os.read(holds_reader, 1) == b"+"
    with record.ledger_lock() as locked:
        assert not locked
    os.close(done_writer)
    os.waitpid(pid, 0)
    with record.ledger_lock() as locked:
        assert locked
    for fd in (holds_reader, holds_writer):
        os.close(fd)


def test_the_lock_is_given_back_after_an_error(store: RecordStore, record: Record) -> None:
    with pytest.raises(ValueError, match="x"), record.ledger_lock():
        raise ValueError("x")
    other = store.open("one")
    with other.ledger_lock() as locked:
        assert locked
    other.close()


def test_the_store_lists_and_removes(store: RecordStore) -> None:
    assert store.names() == ()
    for name in ("a", "b"):
        store.open(name).close()
    assert sorted(store.names()) == ["a", "b"]
    store.remove("a")
    store.remove("a")
    assert store.names() == ("b",)
    assert store.open_existing("a") is None


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A disk of 64 KiB at a folder."""
    place.mkdir()
    try:
        syscalls.mount("tmpfs", str(place), "tmpfs", 0, "size=64k")
    except PermissionError:
        pytest.skip("mounting takes root")
    try:
        yield place
    finally:
        syscalls.umount2(str(place), syscalls.MNT_DETACH)


def fill(place: Path) -> None:
    with suppress(OSError), (place / "filler").open("wb", buffering=0) as file:
        while file.write(bytes(512)):
            continue


def test_a_record_is_written_to_on_a_disk_that_is_full_since(tmp_path: Path) -> None:
    """So that no counter steps back that was told before."""
    with small_disk(tmp_path / "disk") as disk:
        record = RecordStore(str(disk)).open("one")
        fill(disk)
        record.write_identity(IDENTITY)
        record.write_load(b"load")
        record.write_ledger(b"x" * 4000)
        assert blocks(record) == (IDENTITY, b"load", b"x" * 4000)
        record.close()


def test_a_full_disk_has_no_record_that_cannot_be_written(tmp_path: Path) -> None:
    """One that never says whose it is would be listed for nothing."""
    with small_disk(tmp_path / "disk") as disk:
        fill(disk)
        store = RecordStore(str(disk))
        before = open_below(disk)
        with pytest.raises(OSError, match="No space left"):
            store.open("one")
        assert store.names() == ("filler",)
        assert open_below(disk) == before


def test_a_record_of_old_is_used_on_a_full_disk(tmp_path: Path) -> None:
    """It may not have room for all that is to come, but it tells what was."""
    with small_disk(tmp_path / "disk") as disk:
        (disk / "one").touch()
        record = Record(str(disk / "one"), create=False)
        record.write_identity(IDENTITY)
        record.close()
        fill(disk)
        again = RecordStore(str(disk)).open("one")
        assert again.read_identity() == IDENTITY
        again.close()


def test_records_are_kept_open_within_a_budget(store: RecordStore, tmp_path: Path) -> None:
    budget = FileBudget(2)
    records = [store.open(str(number), budget) for number in range(5)]
    for _ in range(2):
        for number, one in enumerate(records):
            one.write_load(b"%d" % number)
            assert one.read_load() == b"%d" % number
            assert len(open_below(tmp_path)) <= 2
    for one in records:
        one.close()
    assert open_below(tmp_path) == []


def test_a_locked_record_is_not_given_up(store: RecordStore) -> None:
    """The lock would be gone with its descriptor."""
    budget = FileBudget(1)
    mine, other = store.open("mine", budget), store.open("other", budget)
    with mine.ledger_lock() as locked:
        assert locked
        other.write_load(b"load")
        mine.write_ledger(b"ledger")
        rival = store.open("mine")
        with rival.ledger_lock() as twice:
            assert not twice
        rival.close()
    third = store.open("third", budget)
    assert len(budget) == 1, "what was held is counted again"
    for one in (mine, other, third):
        one.close()


def test_a_record_that_went_while_it_was_closed_is_that_of_a_cgroup_that_is_gone(
    store: RecordStore,
) -> None:
    budget = FileBudget(1)
    first, second = store.open("first", budget), store.open("second", budget)
    store.remove("first")
    with pytest.raises(CgroupGone):
        first.read_load()
    second.close()


def test_who_has_a_removed_record_open_keeps_it(store: RecordStore, record: Record) -> None:
    store.remove("one")
    record.write_load(b"load")
    assert record.read_load() == b"load"
    new = store.open("one")
    assert new.read_load() is None
    new.close()
