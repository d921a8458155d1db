"""RFC 6902 as an API server applies it, for the operations that admission may use."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any


def operations_of(response: dict[str, Any]) -> list[dict[str, Any]]:
    """The patch of an AdmissionReview; none if it has none."""
    inner = response["response"]
    if "patch" not in inner:
        assert "patchType" not in inner
        return []
    assert inner["patchType"] == "JSONPatch"
    decoded: list[dict[str, Any]] = json.loads(base64.b64decode(inner["patch"], validate=True))
    return decoded


def apply(document: Any, operations: list[dict[str, Any]]) -> Any:  # noqa: ANN401 -- any JSON
    """A patched copy. KeyError, IndexError or ValueError where an operation has no place."""
    patched = copy.deepcopy(document)
    for operation in operations:
        first, *parts = operation["path"].split("/")
        if first or not parts:
            raise ValueError(operation["path"])
        *parents, last = (part.replace("~1", "/").replace("~0", "~") for part in parts)
        place = patched
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place[part]
        _carry_out(operation, place, last)
    return patched


def _carry_out(operation: dict[str, Any], place: Any, last: str) -> None:  # noqa: ANN401
    match operation["op"]:
        case "add" if isinstance(place, list):
            index = len(place) if last == "-" else int(last)
            if not 0 <= index <= len(place):
                raise IndexError(last)
            place.insert(index, copy.deepcopy(operation["value"]))
        case "add" if isinstance(place, dict):
            place[last] = copy.deepcopy(operation["value"])
        case "remove" if isinstance(place, dict):
            del place[last]
        case other:
            raise ValueError(f"{other} in {type(place).__name__}")
