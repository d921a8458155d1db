"""The truth test: a machine and containers of its size tell the same facts to the same tools."""

from collections.abc import Collection
from dataclasses import replace

import pytest

from tests.machine.fidelity import repeat
from tests.machine.fidelity.facts import Cell
from tests.machine.fidelity.report import REASONS, agreeing, agreement, agreement_of_page
from tests.machine.fidelity.subjects import CONTAINERS, MACHINE, Record, measure


@pytest.fixture(scope="module")
def measured() -> list[Cell]:
    """Every tool's word on every fact, in all subjects; as it was last, where measured again."""
    return repeat.settled(measure())


@pytest.mark.timeout(1500)
def test_what_a_container_tells_is_what_a_machine_of_its_size_tells(measured: list[Cell]) -> None:
    """Each tool and fact agrees in every kind of container, but for those with a known reason."""
    print(agreement(measured))
    wrong = [cell for cell in measured if agreeing(cell) != CONTAINERS]
    unexpected = [cell for cell in wrong if (cell.fact, cell.tool) not in REASONS]
    assert not unexpected
    assert {(cell.fact, cell.tool) for cell in wrong} == set(REASONS)


def test_the_page_tells_what_is_measured(measured: list[Cell]) -> None:
    """The table in docs/fidelity.md, which `python3 -m tests.machine.fidelity` writes."""
    assert agreement_of_page() == agreement(measured)


@pytest.mark.parametrize("wrong", [0, 1, 2, 3])
def test_what_is_wrong_each_time_stays_wrong(monkeypatch: pytest.MonkeyPatch, wrong: int) -> None:
    """Only the part that it is in is measured again, at most twice, and nothing that was right."""
    right = [Cell(fact, tool, {}, CONTAINERS) for fact, tool in (("CPUs", "top"), ("disk", "top"))]
    told = [right[0], replace(right[1], agreeing=())]
    times = iter([told] * wrong + [right] * 3)
    asked: list[Collection[str]] = []

    def measure_again(parts: Collection[str], limits: str) -> dict[str, Record]:
        assert limits == "--cpus 2"
        asked.append(parts)
        return {}

    monkeypatch.setattr(repeat, "cells", lambda _: next(times))
    monkeypatch.setattr(repeat, "limits_of", lambda _: "--cpus 2")
    monkeypatch.setattr(repeat, "measure", measure_again)
    assert repeat.settled({MACHINE: {}}) == (told if wrong == 3 else right)
    assert asked == [["disk"]] * min(wrong, 2)
