"""Which container a number in a node id stands for: the tree's side of the bargain."""

from __future__ import annotations

from typing import Protocol

from procscope.containers.container import Container
from procscope.values import frozen


@frozen
class Pin:
    """One lifetime of a container, with a number of its own."""

    number: int
    name: str
    """Of its folder in the pinned tree; nobody guesses it."""
    container: Container
    lifetime: str
    """See `Observatory.lifetime`."""


class Pins(Protocol):
    """All of them, known to every worker, and to those that come after it."""

    def of_lifetime(self, container: Container, lifetime: str) -> Pin | None:
        """Return the pin of a container, made now if there is none; None where that fails."""
        ...

    def of_number(self, number: int) -> Pin | None:
        """Return the pin with that number."""
        ...

    def of_name(self, name: str) -> Pin | None:
        """Return the pin with that name."""
        ...

    def sweep(self) -> None:
        """Forget those of containers that have gone."""


class NoPins:
    """Nothing is pinned, and nothing can be."""

    def of_lifetime(self, container: Container, lifetime: str) -> None:
        """Return None."""

    def of_number(self, number: int) -> None:
        """Return None."""

    def of_name(self, name: str) -> None:
        """Return None."""

    def sweep(self) -> None:
        """There is nothing to forget."""
