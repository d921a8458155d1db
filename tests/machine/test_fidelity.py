"""The truth test: a machine and containers of its size tell the same facts to the same tools."""

import pytest

from tests.machine.fidelity.facts import Cell, cells
from tests.machine.fidelity.report import REASONS, agreeing, agreement, agreement_of_page
from tests.machine.fidelity.subjects import CONTAINERS, measure


@pytest.fixture(scope="module")
def measured() -> list[Cell]:
    """Every tool's word on every fact, in all subjects."""
    return list(cells(measure()))


@pytest.mark.timeout(900)
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
