"""What the tests have measured, for the end of the run."""

from __future__ import annotations

FIGURES: list[str] = []


def figure(line: str) -> None:
    """Print a line now, where output is shown, and once more at the end of the run."""
    print(line)
    FIGURES.append(line)
