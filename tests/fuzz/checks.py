"""What targets check with, and how they cut one input into several."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class BrokenPromiseError(Exception):
    """A target did what it must never do."""


def require(condition: bool, what: object) -> None:
    """Raise where a promise is broken; not `assert`, so that no interpreter option is needed."""
    if not condition:
        raise BrokenPromiseError(what)


def attempt(function: Callable[..., T], *args: object, allowed: type[Exception]) -> T | None:
    """Return the result, None where the one documented error came."""
    try:
        return function(*args)
    except allowed:
        return None


def parts(data: bytes, count: int) -> list[bytes]:
    """Cut an input at the bytes 0xFF, of which no kernel text has any, into exactly `count`."""
    pieces = data.split(b"\xff", count - 1)
    return pieces + [b""] * (count - len(pieces))


def joined(*pieces: bytes) -> bytes:
    """The input that `parts` cuts into these."""
    return b"\xff".join(pieces)


def number(data: bytes, bits: int = 64) -> int:
    """Any input as an unsigned number."""
    return int.from_bytes(data[: bits // 8], "little")
