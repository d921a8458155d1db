"""Which inputs are worth keeping: those that reach a line-to-line step which no smaller one did."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import CodeType, FrameType
from typing import Protocol

import procscope

SOURCES = str(Path(procscope.__file__).parent)
Step = tuple[CodeType, int, int]


class _Tracer(Protocol):
    """What sys.settrace takes."""

    def __call__(self, frame: FrameType, event: str, argument: object, /) -> _Tracer | None: ...


def minimised(
    target: Callable[[bytes], None], inputs: Iterable[bytes], most_bytes: int
) -> list[bytes]:
    """Return the inputs to keep, smallest first, together at most `most_bytes`.

    An input that breaks a promise is not among them: it belongs in a unit test.
    """
    seen: set[Step] = set()
    kept: list[bytes] = []
    room = most_bytes
    for data in sorted(set(inputs), key=lambda one: (len(one), one)):
        if len(data) > room:
            break
        new = steps(target, data) - seen
        if new:
            seen |= new
            kept.append(data)
            room -= len(data)
    return kept


def steps(target: Callable[[bytes], None], data: bytes) -> set[Step]:
    """The steps from line to line inside the package that an input takes; none where it fails."""
    taken: set[Step] = set()

    def trace(frame: FrameType, event: str, _: object) -> _Tracer | None:
        if not frame.f_code.co_filename.startswith(SOURCES):
            return None
        last = frame.f_lineno

        def lines(frame: FrameType, event: str, _: object) -> _Tracer | None:
            nonlocal last
            if event == "line":
                taken.add((frame.f_code, last, frame.f_lineno))
                last = frame.f_lineno
            return lines

        taken.add((frame.f_code, 0, last))
        return lines

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        target(data)
    except Exception:  # noqa: BLE001 - whatever it is, the engine has told it already
        return set()
    finally:
        sys.settrace(before)
    return taken
