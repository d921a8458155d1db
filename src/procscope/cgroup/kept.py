"""A value that is made of files of cgroups, and made anew only where one of them has changed.

To take texts apart, to add up and to write down touches hundreds of objects, which after a pause
are in no cache any more. To see that all texts are what they were costs one pread(2) for each, and
tells of a changed limit at once, whoever has changed it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

from procscope.cgroup.files import FOR_EVER, Clock, FileBudget, KernelFile, Trace

_Value = TypeVar("_Value")


class Kept(Generic[_Value]):
    """One value, made of the files of one container.

    Which files these are is found out while it is made. Their texts are kept as a hash, with a
    key that is this process's secret: 64 bits in the place of some kilobytes.
    """

    __slots__ = ("_beside", "_budget", "_clock", "_files", "_hash", "_trace", "_until", "_value")

    def __init__(self, trace: Trace, budget: FileBudget, clock: Clock) -> None:
        self._trace = trace
        self._budget = budget
        self._clock = clock
        self._files: tuple[KernelFile, ...] = ()
        """Empty while there is no value to be given out again."""
        self._hash = 0
        self._until = FOR_EVER
        self._beside: object = None
        self._value: _Value

    def get(self, make: Callable[[], _Value], beside: object = None) -> _Value:
        """Return what `make` returns, or would return.

        `make` reads files of the container only, and no other `Kept` of it; whatever else it
        depends on is equal where `beside` is equal. Raises what `make` raises.
        """
        files = self._files
        if not files or beside != self._beside:
            return self._make(make, beside, {})
        try:
            texts = [os.pread(file.fd, file.buffer_bytes, 0) for file in files]
        except OSError:
            # Closed for the budget's sake, or gone: `make` will see.
            return self._make(make, beside, {})
        if hash(tuple(texts)) != self._hash or (
            self._until != FOR_EVER and self._clock() >= self._until
        ):
            at_hand = dict(zip(files, texts, strict=True))
            return self._make(make, beside, at_hand)
        if self._budget.is_tight:
            for file in files:
                self._budget.used(file)
        return self._value

    def _make(
        self, make: Callable[[], _Value], beside: object, at_hand: dict[KernelFile, bytes]
    ) -> _Value:
        trace = self._trace
        self._files = ()
        trace.begin(at_hand)
        try:
            value = make()
            texts = trace.texts
            if texts and trace.until > 0:
                self._files, self._hash = tuple(texts), hash(tuple(texts.values()))
                self._until, self._beside, self._value = trace.until, beside, value
        finally:
            trace.end()
        return value
