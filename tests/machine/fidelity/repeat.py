"""Measures again what is not as expected: only what repeats is told.

A subject may be interrupted between two samples: the host of its emulator does something else, or
its kernel takes or frees some MiB of its own. What a view gets wrong is wrong each time.
"""

import sys
from collections.abc import Mapping

from tests.machine.fidelity.facts import FACTS, Cell, cells
from tests.machine.fidelity.report import is_expected
from tests.machine.fidelity.subjects import MACHINE, Record, limits_of, measure

TIMES = 3
_PARTS: Mapping[str, str] = {fact.title: fact.part for fact in FACTS}


def settled(records: Mapping[str, Record]) -> list[Cell]:
    """The cells of these records, with those that were not as expected as measured last.

    A cell is as expected in the last measurement, or was not in any of them.
    """
    told = {(cell.fact, cell.tool): cell for cell in cells(records)}
    limits = limits_of(records[MACHINE])
    for _ in range(TIMES - 1):
        doubtful = {key: cell for key, cell in told.items() if not is_expected(cell)}
        if not doubtful:
            break
        print("measured again:", *doubtful.values(), sep="\n  ", file=sys.stderr)
        parts = sorted({_PARTS[fact] for fact, _ in doubtful})
        again = {(cell.fact, cell.tool): cell for cell in cells(measure(parts, limits))}
        told |= {key: again[key] for key in doubtful}
    return list(told.values())
