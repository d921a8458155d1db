"""Numbers from many, and how they are written."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

NOTHING = "-"
"""Stands where there is no figure."""


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that so many per cent do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def ratio_of_rounds(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Return the median of the rounds' ratios; None where something costs nothing measurable.

    The two of a round were measured one right after the other: whatever else the machine did then
    weighs on both.
    """
    ratios = [a / b for a, b in zip(ours, theirs, strict=True) if b]
    return statistics.median(ratios) if ratios else None


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, markdown: bool = False) -> str:
    """Return rows of cells as aligned text, or as a table of Markdown. Numbers stand right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    right = [
        all(row[place][:1] in f"0123456789{NOTHING}" for row in rows if row[place])
        for place in range(len(head))
    ]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(cells, widths, right, strict=True)
        ]
        return f"| {' | '.join(padded)} |" if markdown else "  ".join(padded).rstrip()

    rule = [
        "-" * (width - 1) + ":" if to_right else "-" * width
        for width, to_right in zip(widths, right, strict=True)
    ]
    under = f"| {' | '.join(rule)} |" if markdown else "  ".join("-" * width for width in widths)
    return "\n".join([line(head), under, *map(line, rows)])


def number(value: float | None, digits: int = 1) -> str:
    """Return a number for a cell; a dash where there is none."""
    return NOTHING if value is None else f"{value:,.{digits}f}"
