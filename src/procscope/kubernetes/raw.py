"""Reading JSON objects of an API: by exact keys, absent where absent, one error for a wrong type.

The objects are kept as they came, so that fields that nobody here knows of survive. `null` is the
same as an absent key, as it is for the API server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_TYPE_NAMES: Final = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}


class MalformedError(Exception):
    """A part of an object has another type than its API gives it. The text names the part."""


def table(parent: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The object at `key`, empty where there is none. Raises MalformedError for another type."""
    return _typed(parent, key, dict) or {}


def tables(parent: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The list of objects at `key`, empty where there is none. Raises MalformedError."""
    items: list[dict[str, Any]] = _typed(parent, key, list) or []
    if not all(isinstance(item, dict) for item in items):
        raise MalformedError(f"{key!r} is not a list of objects")
    return items


def texts(parent: Mapping[str, Any], key: str) -> dict[str, str]:
    """The map of strings at `key`, empty where there is none. Raises MalformedError."""
    values = table(parent, key)
    if not all(isinstance(value, str) for value in values.values()):
        raise MalformedError(f"{key!r} is not a map of strings")
    return values


def text(parent: Mapping[str, Any], key: str) -> str:
    """The string at `key`, empty where there is none. Raises MalformedError for another type."""
    return _typed(parent, key, str) or ""


def flag(parent: Mapping[str, Any], key: str) -> bool | None:
    """The boolean at `key`, None where there is none. Raises MalformedError for another type."""
    value: bool | None = _typed(parent, key, bool)
    return value


def _typed(parent: Mapping[str, Any], key: str, kind: type) -> Any:  # noqa: ANN401 -- any JSON
    value = parent.get(key)
    if value is not None and not isinstance(value, kind):
        raise MalformedError(f"{key!r} is not {_TYPE_NAMES[kind]}")
    return value
