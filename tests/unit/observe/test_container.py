"""Proves: a container's age, tasks and CPU time go on over workers, and start anew with it."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from procscope.cgroup.model import TaskCounts
from procscope.containers.container import Container
from procscope.observe import asleep
from procscope.observe import container as module
from procscope.observe.boottime import NS_PER_TICK, boottime_ns
from procscope.observe.loadblock import LoadBlock
from procscope.observe.observatory import Observatory
from procscope.observe.records import LOCK_PATIENCE_NS, Record
from procscope.observe.registry import VIEWS
from procscope.views.cpu_ledger import CpuColumns, CpuLedger
from procscope.views.loadavg import Load
from tests.unit.cgroup.trees import write_tree
from tests.unit.observe.fakehost import FakeHost

NS = 1_000_000_000


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


@pytest.fixture
def observatory(host: FakeHost) -> Iterator[Observatory]:
    observatory = host.observatory()
    yield observatory
    observatory.close()


def only_record(host: FakeHost) -> Record:
    (name,) = host.records.names()
    return host.records.open(name)


def born_ago(seconds: int) -> int:
    return (boottime_ns() - seconds * NS) // NS_PER_TICK


def uptime_s(observatory: Observatory, container: Container) -> float:
    return float(observatory.render(VIEWS["uptime"], container).split()[0])


def test_age_counts_from_the_first_process(host: FakeHost, observatory: Observatory) -> None:
    container = host.add_container("c")
    host.proc.add(10, nspid=(10, 1), start_ticks=born_ago(100))
    host.set_tasks("c", 10)
    assert 100 <= uptime_s(observatory, container) < 110


def test_birth_is_remembered_after_the_first_process_has_ended(host: FakeHost) -> None:
    container = host.add_container("c")
    host.proc.add(10, nspid=(10, 1), start_ticks=born_ago(100))
    host.set_tasks("c", 10)
    first = host.observatory()
    first.track(container)
    first.close()
    host.proc.end(10)
    host.proc.add(11, nspid=(11, 2), start_ticks=born_ago(1))
    host.set_tasks("c", 11)
    second = host.observatory()
    assert uptime_s(second, container) >= 100
    second.close()


def test_an_empty_cgroup_is_of_age_0_until_its_first_process(
    host: FakeHost, observatory: Observatory
) -> None:
    container = host.add_container("c")
    assert uptime_s(observatory, container) == 0
    host.proc.add(10, nspid=(10, 1), start_ticks=born_ago(50))
    host.set_tasks("c", 10)
    assert uptime_s(observatory, container) >= 50


def test_cpu_time_goes_on_in_another_worker(host: FakeHost) -> None:
    container = host.add_container("c")
    host.proc.add(10, nspid=(10, 1), start_ticks=born_ago(100))
    host.set_tasks("c", 10)
    idle: list[float] = []
    for _ in range(3):
        worker = host.observatory()
        idle.append(float(worker.render(VIEWS["uptime"], container).split()[1]))
        worker.close()
    assert idle == sorted(idle)
    record = only_record(host)
    assert record.read_ledger() is not None
    record.close()


def test_what_another_worker_has_told_is_where_the_next_answer_goes_on(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each remembers what it has written, and looks whether that is still what was told last."""
    container = host.add_container("c", quota="100000 100000")
    host.proc.add(10, nspid=(10, 1), start_ticks=born_ago(100))
    host.set_tasks("c", 10)
    stat = host.cgroups / "c" / "cpu.stat"
    now_ns = boottime_ns()
    monkeypatch.setattr(module, "boottime_ns", lambda: now_ns)
    with closing(host.observatory()) as one, closing(host.observatory()) as other:
        idle_s, used_s = 0.0, 0
        for step in range(6):
            now_ns += 10 * NS
            used_s += 7 * (step % 2)
            stat.write_text(f"user_usec {used_s * 1_000_000}\nsystem_usec 0\n")
            for worker in (one, other, other, one):
                age_s, found_s = map(float, worker.render(VIEWS["uptime"], container).split())
                assert age_s - found_s == pytest.approx(used_s)
                assert found_s >= idle_s
                idle_s = found_s


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["stat", "uptime"]),
        st.sampled_from([0, 3, NS // 100, NS]),
        st.sampled_from([0, 3, 7_000, 2_000_000]),
        st.sampled_from(["100000 100000", "150000 100000", "max 100000"]),
        st.sampled_from(["", "", "", "restart", "damage"]),
    ),
    min_size=2,
    max_size=25,
)


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
def test_whichever_worker_tells_nothing_goes_back(
    tmp_path: Path, steps: list[tuple[int, str, int, int, str, str]]
) -> None:
    """Three workers in any order, one of them killed at times, under a quota that changes.

    A ledger that is damaged may be lost, and with it what was told; then it is right again.
    """
    shutil.rmtree(tmp_path, ignore_errors=True)
    host = FakeHost(tmp_path)
    container = host.add_container("c")
    host.proc.add(10, nspid=(10, 1), start_ticks=born_ago(100))
    host.set_tasks("c", 10)
    write_tree(tmp_path, {"proc/stat": "cpu  1 1 1 1 1 1 1 1 1 1\ncpu0 1\nbtime 1\n"})
    workers = [host.observatory() for _ in range(3)]
    now_ns, used_usec, told = boottime_ns(), 0, dict[str, list[int]]()
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "_VISIBLE_NS", -1)
        patched.setattr(module, "boottime_ns", lambda: now_ns)
        for worker, view, passes_ns, uses_usec, quota, event in steps:
            now_ns, used_usec = now_ns + passes_ns, used_usec + uses_usec
            (host.cgroups / "c/cpu.stat").write_text(f"user_usec {used_usec}\nsystem_usec 0\n")
            (host.cgroups / "c/cpu.max").write_text(f"{quota}\n")
            if event == "restart":
                workers[worker].close()
                workers[worker] = host.observatory()
            elif event == "damage" and host.records.names():
                record = only_record(host)
                record.write_ledger(b"x" * 200)
                record.close()
                told.clear()
            content = workers[worker].render(VIEWS[view], container)
            for name, numbers in columns(view, content).items():
                before = told.get(name, numbers)
                assert all(a <= b for a, b in zip(before, numbers, strict=True)), (name, before)
                told[name] = numbers
        assert host.fallbacks == []
        for one in workers:
            stack.callback(one.close)


def columns(view: str, content: bytes) -> dict[str, list[int]]:
    """The numbers of each CPU; those of all together step back where there are fewer CPUs."""
    if view == "uptime":
        return {"age": [int(content.split()[0].replace(b".", b""))]}
    lines = [line.split() for line in content.decode().splitlines()]
    rows = {words[0]: list(map(int, words[1:])) for words in lines if words[0][3:].isdigit()}
    assert len({sum(row) for row in rows.values()}) == 1
    return rows


def test_a_damaged_ledger_is_no_error(host: FakeHost, observatory: Observatory) -> None:
    container = host.add_container("c")
    host.proc.add(10, nspid=(10, 1), start_ticks=born_ago(100))
    host.set_tasks("c", 10)
    uptime_s(observatory, container)
    record = only_record(host)
    record.write_ledger(b"not a ledger")
    record.close()
    assert uptime_s(observatory, container) >= 100
    assert host.fallbacks == []


def test_loadavg_tells_own_tasks_and_the_samplers_load(
    host: FakeHost, observatory: Observatory
) -> None:
    container = host.add_container("c")
    for pid, state in ((10, "R"), (11, "D"), (12, "S")):
        host.proc.add(pid, nspid=(pid, pid - 9), state=state)
    host.set_tasks("c", 10, 11, 12)
    observatory.track(container)
    record = only_record(host)
    record.write_load(LoadBlock(Load(2048, 4096, 1024), TaskCounts(9, 9, 9), 99, 1).to_bytes())
    record.close()
    assert observatory.render(VIEWS["loadavg"], container) == b"1.00 2.00 0.50 2/3 3\n"


def test_loadavg_starts_at_zero(host: FakeHost, observatory: Observatory) -> None:
    container = host.add_container("c")
    host.proc.add(10, nspid=(10, 1))
    host.set_tasks("c", 10)
    assert observatory.render(VIEWS["loadavg"], container) == b"0.00 0.00 0.00 1/1 1\n"


def use_cpu(host: FakeHost, name: str, usec: int) -> None:
    stat = host.cgroups / name / "cpu.stat"
    stat.write_text(f"usage_usec {usec}\nuser_usec {usec}\nsystem_usec 0\n")


def tasks(observatory: Observatory, container: Container) -> bytes:
    return observatory.render(VIEWS["loadavg"], container).split(b" ")[3]


def running(host: FakeHost, observatory: Observatory, container: Container) -> bytes:
    write_tree(host.root, {"proc/stat": "cpu  0 0 0 0\nprocs_running 9\nprocs_blocked 9\n"})
    lines = observatory.render(VIEWS["stat"], container).splitlines()
    return b" ".join(line for line in lines if line.startswith(b"procs_"))


def test_tasks_that_sleep_are_not_looked_at_until_one_has_run(
    host: FakeHost, observatory: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fake's tasks change their state without running, which no real one can."""
    monkeypatch.setattr(module, "_TASKS_NS", 0)
    container = host.add_container("c")
    for pid in (10, 11):
        host.proc.add(pid, nspid=(pid, pid - 9), state="S")
    host.set_tasks("c", 10, 11)
    assert tasks(observatory, container) == b"1/2"
    host.proc.set_state(10, "R")
    host.proc.set_state(11, "D")
    use_cpu(host, "c", 400)
    assert tasks(observatory, container) == b"1/2"
    assert running(host, observatory, container) == b"procs_running 1 procs_blocked 0"
    use_cpu(host, "c", 600)
    assert running(host, observatory, container) == b"procs_running 2 procs_blocked 1"
    assert tasks(observatory, container) == b"2/2"


@pytest.mark.parametrize("state", ["R", "D"])
def test_tasks_that_did_not_sleep_are_looked_at_though_none_has_run(
    host: FakeHost, observatory: Observatory, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """One that waits for a CPU, or for a disk."""
    monkeypatch.setattr(module, "_TASKS_NS", 0)
    container = host.add_container("c")
    host.proc.add(10, nspid=(10, 1), state=state)
    host.set_tasks("c", 10)
    before = running(host, observatory, container)
    assert before != b"procs_running 1 procs_blocked 0"
    assert running(host, observatory, container) == before
    host.proc.set_state(10, "S")
    assert running(host, observatory, container) == b"procs_running 1 procs_blocked 0"


def test_the_samplers_word_that_all_sleep_is_taken(
    host: FakeHost, observatory: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a container that this worker has never counted."""
    container = host.add_container("c")
    host.proc.add(10, nspid=(10, 1), state="R")
    host.set_tasks("c", 10)
    observatory.track(container)
    record = only_record(host)
    record.write_asleep(asleep.to_bytes(0))
    assert running(host, observatory, container) == b"procs_running 1 procs_blocked 0"
    record.write_asleep(asleep.to_bytes(None))
    record.close()
    use_cpu(host, "c", 600)
    assert running(host, observatory, container) == b"procs_running 2 procs_blocked 0"


def test_very_many_threads_are_not_walked_at_a_read(
    host: FakeHost, observatory: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_COUNTED_THREADS", 2)
    container = host.add_container("c")
    for pid in (10, 11, 12):
        host.proc.add(pid, nspid=(pid, pid - 9), state="R")
    host.set_tasks("c", 10, 11, 12)
    observatory.track(container)
    record = only_record(host)
    record.write_load(LoadBlock(Load(), TaskCounts(7, 0, 5000), 4321, 1).to_bytes())
    record.close()
    assert observatory.render(VIEWS["loadavg"], container) == b"0.00 0.00 0.00 8/5000 4321\n"


def test_without_a_state_directory_views_are_whole_all_the_same(host: FakeHost) -> None:
    container = host.add_container("c")
    host.proc.add(10, nspid=(10, 1), start_ticks=born_ago(100))
    host.set_tasks("c", 10)
    alone = Observatory(host.hierarchies, host.observatory().host, None)
    assert uptime_s(alone, container) >= 100
    assert alone.render(VIEWS["loadavg"], container) == b"0.00 0.00 0.00 1/1 1\n"
    alone.close()


def test_a_reader_that_waits_in_vain_is_told_what_was_told_last(
    host: FakeHost, observatory: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it handed out itself, beside the holder of the lock, the next read might take back."""

    def idle_s() -> float:
        return float(observatory.render(VIEWS["uptime"], container).split()[1])

    container = host.add_container("c")
    host.proc.add(10, nspid=(10, 1), start_ticks=born_ago(100))
    host.set_tasks("c", 10)
    told_s = idle_s()
    later_ns = boottime_ns() + 10 * NS
    monkeypatch.setattr(module, "boottime_ns", lambda: later_ns)
    holder = only_record(host)
    with holder.ledger_lock() as locked:
        assert locked
        assert idle_s() == told_s
    assert idle_s() >= told_s + 9
    holder.close()


def test_what_was_told_while_the_ledger_was_locked_is_not_taken_back(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker's own last word is not the last one, though it has seen that one since."""
    container = host.add_container("c", quota="100000 100000")
    host.proc.add(10, nspid=(10, 1), start_ticks=born_ago(100))
    host.set_tasks("c", 10)
    now_ns = boottime_ns()
    monkeypatch.setattr(module, "boottime_ns", lambda: now_ns)
    with closing(host.observatory()) as one, closing(host.observatory()) as other:
        one.render(VIEWS["uptime"], container)
        now_ns += 10 * NS
        told = other.render(VIEWS["uptime"], container)
        (host.cgroups / "c/cpu.stat").write_text("user_usec 5000000\nsystem_usec 0\n")
        holder = only_record(host)
        with holder.ledger_lock() as locked:
            assert locked
            assert one.render(VIEWS["uptime"], container) == told
        holder.close()
        assert one.render(VIEWS["uptime"], container) == told


def test_a_reader_waits_for_a_ledger_that_is_being_written(
    host: FakeHost, observatory: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of one tells nothing, and numbers made without it could be less than what was told."""
    container = host.add_container("c")
    host.proc.add(10, nspid=(10, 1), start_ticks=born_ago(100))
    host.set_tasks("c", 10)
    uptime_s(observatory, container)
    holder = only_record(host)
    told = CpuLedger.from_bytes(holder.read_ledger() or b"")
    assert told is not None
    rows = {cpu: CpuColumns(user=told.age_ticks) for cpu in told.columns}
    whole = told._replace(columns=rows).to_bytes()
    monkeypatch.setattr(module, "_UNREADABLE_PATIENCE_NS", 60 * NS)
    began_ns = time.monotonic_ns()

    def wait(_seconds: float) -> None:
        if time.monotonic_ns() - began_ns > 4 * LOCK_PATIENCE_NS:
            holder.write_ledger(whole)
            lock.close()

    with ExitStack() as lock:
        assert lock.enter_context(holder.ledger_lock())
        holder.write_ledger(whole[:-1])
        monkeypatch.setattr(time, "sleep", wait)
        idle_s = float(observatory.render(VIEWS["uptime"], container).split()[1])
        assert idle_s < 50, "without the ledger, all of its 100 s were idle"
    holder.close()


def test_what_cannot_be_written_is_said_and_tried_again(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that is full, and has room again: the log names the folder and what it means."""
    monkeypatch.setattr(module, "_NO_RECORD_NS", 0)
    container = host.add_container("c")
    host.proc.add(10, nspid=(10, 1), start_ticks=born_ago(100))
    host.set_tasks("c", 10)
    with closing(host.observatory()) as observatory:
        with monkeypatch.context() as patched:
            patched.setattr(os, "posix_fallocate", no_space)
            assert 100 <= uptime_s(observatory, container) < 110
        assert host.records.names() == ()
        messages = [record.getMessage() for record in caplog.records]
        assert messages
        for message in messages:
            assert host.records.directory in message
            assert "CPU times may step back: No space left on device" in message
        assert 100 <= uptime_s(observatory, container) < 110
        record = only_record(host)
        assert record.read_ledger()
        record.close()


def no_space(fd: int, offset: int, length: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_ledger_that_cannot_be_written_is_said(
    host: FakeHost,
    observatory: Observatory,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    container = host.add_container("c")
    observatory.track(container)
    monkeypatch.setattr(Record, "write_ledger", refuse)
    uptime_s(observatory, container)
    (record,) = caplog.records
    assert "Read-only file system" in record.getMessage()
    # One line for the folder, not for each container: that is how the log tells subjects apart.
    assert record.args is not None
    assert next(iter(record.args)) == host.records.directory


def refuse(record: Record, block: bytes) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))
