"""Whether a replica is ready for admissions, and if not, why."""

from __future__ import annotations

from collections.abc import Callable


class Readiness:
    """Conditions that all have to hold; none does once the replica is on its way out."""

    def __init__(self) -> None:
        self._conditions: list[tuple[str, Callable[[], bool]]] = []
        self._draining = False

    @property
    def draining(self) -> bool:
        """Whether this replica has been told to end."""
        return self._draining

    def require(self, lack: str, holds: Callable[[], bool]) -> None:
        """Add a condition; `lack` says what is missing while it does not hold."""
        self._conditions.append((lack, holds))

    def drain(self) -> None:
        """Be ready no more."""
        self._draining = True

    def reasons_against(self) -> tuple[str, ...]:
        """Return what is missing; nothing if ready."""
        if self._draining:
            return ("about to end",)
        return tuple(lack for lack, holds in self._conditions if not holds())
