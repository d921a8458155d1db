"""Short texts for people: warnings that kubectl prints, and the status of a pod."""

from __future__ import annotations

import json
from typing import Final

MOST_CHARACTERS: Final = 256
"""Of a warning. The API server cuts longer ones where there are many (filters/warning.go)."""
_MOST_QUOTED: Final = 40


def quoted(value: str) -> str:
    """The value in quotes, on one line, in ASCII, and not longer than a few words."""
    shown = value if len(value) <= _MOST_QUOTED else value[: _MOST_QUOTED - 3] + "..."
    return json.dumps(shown)


def warning(message: str) -> str:
    """The message as kubectl shows it, with the name of who warns."""
    whole = f"procscope: {message}"
    return whole if len(whole) <= MOST_CHARACTERS else whole[: MOST_CHARACTERS - 3] + "..."
