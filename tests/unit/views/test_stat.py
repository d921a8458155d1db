"""The `stat` view: CPU lines that add up to the tick, the host's other lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.cgroup.model import CpuUsage
from procscope.ids import CpuId
from procscope.views import stat
from procscope.views.cpu_ledger import CpuColumns, CpuLedger, TakenTime
from procscope.views.cpu_time import advance
from tests.unit.views.recorded import SECOND_NS, cpus, hosts_with, read, usage

RECORDED = hosts_with("stat")
ROWS = {
    CpuId(1): CpuColumns(user=10, nice=1, system=5, idle=80, steal=4),
    CpuId(3): CpuColumns(user=20, nice=0, system=10, idle=70, steal=0),
}
LEDGER = CpuLedger(100, ROWS, TakenTime(), {})


def test_cpu_lines_are_the_visible_ones_under_their_physical_ids() -> None:
    host = b"cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 9 9 9 9 9 9 9 9 9 9\ncpu1 8\nctxt 7\n"
    view = stat.render(host, LEDGER, cpus(1, 3), 1, 0)
    assert view == (
        b"cpu  30 1 15 150 0 0 0 4 0 0\n"
        b"cpu1 10 1 5 80 0 0 0 4 0 0\n"
        b"cpu3 20 0 10 70 0 0 0 0 0 0\n"
        b"ctxt 7\n"
    )


@pytest.mark.parametrize("columns", [8, 9, 10, 12])
def test_as_many_columns_as_the_host(columns: int) -> None:
    host = b"cpu  " + b" ".join([b"5"] * columns) + b"\ncpu0 5\nbtime 1\n"
    lines = stat.render(host, LEDGER, cpus(1, 3), 1, 0).splitlines()
    assert [len(line.split()) - 1 for line in lines[:3]] == [columns] * 3
    assert lines[0].split()[8] == b"4"


@pytest.mark.parametrize("host", RECORDED)
def test_other_lines_are_the_hosts(host: str) -> None:
    content = read(host, "stat")
    view = stat.render(content, LEDGER, cpus(1, 3), 5, 2)
    theirs, ours = _other_lines(content), _other_lines(view)
    assert list(ours) == list(theirs)
    assert ours.pop(b"procs_running") == b"5"
    assert ours.pop(b"procs_blocked") == b"2"
    assert {key: theirs[key] for key in ours} == ours
    assert {b"intr", b"ctxt", b"btime", b"processes", b"softirq"} <= ours.keys()
    assert view.endswith(b"\n")


def _other_lines(content: bytes) -> dict[bytes, bytes]:
    lines = [line.partition(b" ") for line in content.splitlines()]
    return {key: rest for key, _, rest in lines if key.rstrip(b"0123456789") != b"cpu"}


def test_the_reader_itself_is_running() -> None:
    host = b"cpu  1 1 1 1\nprocs_running 4\nprocs_blocked 3\n"
    assert stat.render(host, LEDGER, cpus(1), 0, 0).endswith(b"procs_running 1\nprocs_blocked 0\n")


@given(
    host=st.sampled_from(RECORDED),
    usages=st.lists(
        st.builds(
            CpuUsage,
            *[st.integers(0, 30 * SECOND_NS)] * 4,
            st.none(),
        ),
        min_size=1,
        max_size=4,
    ),
    visible=st.sets(st.integers(0, 7), min_size=1).map(lambda ids: cpus(*sorted(ids))),
)
def test_the_cpu_line_is_the_sum_and_all_of_it_is_cpus_times_age(
    host: str, usages: list[CpuUsage], visible: tuple[CpuId, ...]
) -> None:
    ledger: CpuLedger | None = None
    for seconds, counted in enumerate(usages, 1):
        ledger = advance(ledger, counted, visible, seconds * SECOND_NS, per_cpu=False)
        lines = stat.render(read(host, "stat"), ledger, visible, 1, 0).splitlines()
        total, *rows = [
            [int(number) for number in line.split()[1:]] for line in lines[: len(visible) + 1]
        ]
        assert total == [sum(column) for column in zip(*rows, strict=True)]
        assert sum(total) == len(visible) * seconds * 100
        assert all(sum(row) == seconds * 100 for row in rows)


def test_a_visible_cpu_that_the_ledger_does_not_know_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="CPU 2"):
        stat.render(b"cpu  1 1 1 1\n", LEDGER, cpus(1, 2), 1, 0)


@given(garbage=st.binary(max_size=60), before=st.sampled_from([b"", b"cpu", b"cpu  ", b"cpu  1\n"]))
def test_garbage_is_a_value_error_or_has_the_cpu_lines(garbage: bytes, before: bytes) -> None:
    try:
        view = stat.render(before + garbage, LEDGER, cpus(1), 1, 0)
    except ValueError:
        return
    assert [line.split()[0] for line in view.split(b"\n")[:2]] == [b"cpu", b"cpu1"]


def test_usage_alone_never_makes_a_cpu_appear() -> None:
    ledger = advance(None, usage(SECOND_NS), cpus(2), SECOND_NS, per_cpu=False)
    lines = stat.render(b"cpu  1 1 1 1 1 1 1 1\ncpu0 1\n", ledger, cpus(2), 1, 0).splitlines()
    assert [line.split()[0] for line in lines] == [b"cpu", b"cpu2"]
