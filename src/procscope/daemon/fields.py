"""What packets to and from a keeper say: fields, each a name, `=` and a text, with NUL between.

A name may come more than once. The form is so plain because a keeper waits beside every daemon:
what takes JSON apart would be a twelfth of its memory.
"""

from __future__ import annotations

from collections.abc import Iterable

Fields = tuple[tuple[str, str], ...]


def pack(fields: Iterable[tuple[str, str]]) -> bytes:
    """Return the packet that says `fields`; no text has a NUL in it."""
    packet = "\0".join(f"{name}={text}" for name, text in fields)
    return packet.encode("utf-8", "surrogateescape")


def unpack(packet: bytes) -> Fields:
    """Return what a packet says. Raises ValueError where it is none."""
    fields = [
        field.partition("=") for field in packet.decode("utf-8", "surrogateescape").split("\0")
    ]
    if not all(name and separator for name, separator, _ in fields):
        raise ValueError("a field without a name")
    return tuple((name, text) for name, _, text in fields)


def first(fields: Fields, name: str) -> str | None:
    """Return the text of the first field `name`; None without one."""
    return next(iter(every(fields, name)), None)


def every(fields: Fields, name: str) -> list[str]:
    """Return the texts of all fields `name`."""
    return [text for one, text in fields if one == name]
