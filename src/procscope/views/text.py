"""What the views share in reading the host's text and writing the container's."""

from __future__ import annotations

KIB = 1024


def unsigned(token: bytes) -> int:
    """Return the decimal number that `token` is, digits only.

    Raises ValueError for anything else, signs and blanks included.
    """
    if not token.isdigit():
        raise ValueError(f"not a number: {token!r}")
    return int(token)


def clamp(value: int, highest: int) -> int:
    """Return `value` moved into 0 … `highest`; 0 where `highest` is negative."""
    return max(0, min(value, highest))
