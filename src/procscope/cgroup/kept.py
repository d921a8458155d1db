"""A value that is made of files of cgroups, and made anew only where one of them has changed.

To take texts apart, to add up and to write down touches hundreds of objects, which after a pause
are in no cache any more. To see that all texts are what they were costs one pread(2) for each, and
tells of a changed limit at once, whoever has changed it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import repeat
from typing import Final, Generic, TypeVar

from procscope.cgroup.files import FOR_EVER, Clock, FileBudget, KernelFile, Trace

_Value = TypeVar("_Value")
_ROOM_BYTES: Final = 32
"""A buffer is so much larger than the text was at least, for numbers that grow."""
_STEP_BYTES: Final = 256
"""A buffer's length is a multiple of it: that of most is one and the same number in memory."""
_FROM_THE_START: Final = repeat(0)


class Kept(Generic[_Value]):
    """One value, made of the files of one container.

    Which files these are is found out while it is made. Their texts are kept as a hash, with a
    key that is this process's secret: 64 bits in the place of some kilobytes. Beside the files
    their descriptors are kept, so that no file's own object is touched as long as none was closed.
    """

    __slots__ = (
        "_beside",
        "_budget",
        "_clock",
        "_closed",
        "_fds",
        "_files",
        "_hash",
        "_sizes",
        "_trace",
        "_until",
        "_value",
    )

    def __init__(self, trace: Trace, budget: FileBudget, clock: Clock) -> None:
        self._trace = trace
        self._budget = budget
        self._clock = clock
        self._files: tuple[KernelFile, ...] = ()
        """Empty while there is no value to be given out again."""
        self._fds: tuple[int, ...] = ()
        self._sizes: tuple[int, ...] = ()
        self._closed = 0
        """What the trace has counted when the descriptors were noted."""
        self._hash = 0
        self._until = FOR_EVER
        self._beside: object = None
        self._value: _Value

    def get(self, make: Callable[[], _Value], beside: object = None) -> _Value:
        """Return what `make` returns, or would return.

        `make` reads files of the container only, and no other `Kept` of it; whatever else it
        depends on is equal where `beside` is equal. Raises what `make` raises.
        """
        texts = self._read() if beside == self._beside else ()
        if texts and hash(texts) == self._hash:
            return self._value
        return self._make(make, beside, texts)

    def unchanged(self) -> _Value | None:
        """Return the value where the files say what they said when it was made; else None."""
        texts = self._read()
        return self._value if texts and hash(texts) == self._hash else None

    def _read(self) -> tuple[bytes, ...]:
        """Return what the files say; nothing where the value has to be made anew."""
        if self._trace.closed != self._closed or (
            self._until != FOR_EVER and self._clock() >= self._until
        ):
            return ()
        if self._budget.is_tight:
            for file in self._files:
                self._budget.used(file)
        try:
            return tuple(map(os.pread, self._fds, self._sizes, _FROM_THE_START))
        except OSError:
            # The cgroup has gone: `make` will see.
            return ()

    def _make(self, make: Callable[[], _Value], beside: object, texts: tuple[bytes, ...]) -> _Value:
        """Make the value. `texts`, just read from the files that it was made of, are of use."""
        trace = self._trace
        read = zip(self._files, texts, self._sizes, strict=False)
        # A full buffer may be a cut text.
        trace.begin({file: text for file, text, size in read if len(text) < size})
        self._files, self._fds, self._sizes = (), (), ()
        try:
            value = make()
            noted = trace.texts
            if noted and trace.until > 0:
                self._files, self._fds = tuple(noted), tuple(file.fd for file in noted)
                self._sizes = tuple(map(_buffer_bytes, noted.values()))
                self._hash, self._closed = hash(tuple(noted.values())), trace.closed
                self._until, self._beside, self._value = trace.until, beside, value
        finally:
            trace.end()
        return value


def _buffer_bytes(text: bytes) -> int:
    return -(-(len(text) + _ROOM_BYTES) // _STEP_BYTES) * _STEP_BYTES
