"""The `uptime` view: the container's age, and the idle time that `stat` shows."""

from __future__ import annotations

import pytest

from procscope.ids import CpuId
from procscope.views import uptime
from procscope.views.cpu_ledger import CpuColumns, CpuLedger, TakenTime
from procscope.views.cpu_time import advance
from tests.unit.views.recorded import SECOND_NS, cpus, usage


@pytest.mark.parametrize(
    ("age_ns", "idle", "shown"),
    [
        (0, (0, 0), b"0.00 0.00\n"),
        (9_999_999, (0, 0), b"0.00 0.00\n"),
        (10_000_000, (1, 0), b"0.01 0.01\n"),
        (59_999_999_999, (5999, 5999), b"59.99 119.98\n"),
        (100_000 * SECOND_NS, (5, 0), b"100000.00 0.05\n"),
        (-5 * SECOND_NS, (0, 0), b"0.00 0.00\n"),
    ],
)
def test_two_decimals_rounded_down(age_ns: int, idle: tuple[int, int], shown: bytes) -> None:
    columns = {CpuId(cpu): CpuColumns(idle=ticks) for cpu, ticks in enumerate(idle)}
    ledger = CpuLedger(max(0, age_ns) // 10_000_000, columns, TakenTime(), {})
    assert uptime.render(age_ns, ledger, cpus(0, 1)) == shown


def test_hidden_cpus_are_not_idle_time() -> None:
    ledger = advance(None, usage(), cpus(0, 1), 5 * SECOND_NS, per_cpu=False)
    ledger = advance(ledger, usage(SECOND_NS), cpus(1), 10 * SECOND_NS, per_cpu=False)
    assert uptime.render(10 * SECOND_NS, ledger, cpus(1)) == b"10.00 9.00\n"


def test_a_visible_cpu_that_the_ledger_does_not_know_is_a_value_error() -> None:
    ledger = advance(None, usage(), cpus(0), SECOND_NS, per_cpu=False)
    with pytest.raises(ValueError, match="CPU 1"):
        uptime.render(SECOND_NS, ledger, cpus(0, 1))
