"""JSON patches (RFC 6902) that add to what is there; the whole object is never sent back.

A typed round trip would drop the fields that this release does not know.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

Operation = dict[str, Any]


def pointer(*parts: str | int) -> str:
    """The JSON pointer (RFC 6901) of a path: `~` and `/` in a name become `~0` and `~1`."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def append(
    present: Sequence[object] | None, items: Sequence[object], *path: str | int
) -> list[Operation]:
    """Put `items` behind the list `present` at `path`, and make the list where it is absent."""
    if not items:
        return []
    if present is None:
        return [{"op": "add", "path": pointer(*path), "value": list(items)}]
    end = pointer(*path, "-")
    return [{"op": "add", "path": end, "value": item} for item in items]


def set_keys(
    present: Mapping[str, object] | None, values: Mapping[str, object], *path: str | int
) -> list[Operation]:
    """Give the map `present` at `path` these values, and make the map where it is absent."""
    if present is None:
        return [{"op": "add", "path": pointer(*path), "value": dict(values)}] if values else []
    return [
        {"op": "add", "path": pointer(*path, key), "value": value}
        for key, value in values.items()
        if key not in present or present[key] != value
    ]


def remove(*path: str | int) -> Operation:
    """Take away what is at `path`."""
    return {"op": "remove", "path": pointer(*path)}


def encode(operations: Sequence[Operation]) -> str:
    """The patch as an AdmissionResponse has it: JSON in base64."""
    return base64.b64encode(json.dumps(operations, separators=(",", ":")).encode()).decode()
