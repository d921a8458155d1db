"""Memory that outlives the processes which use it: a memfd whose size is fixed."""

from __future__ import annotations

import fcntl
import mmap
import os

from procscope.errors import ProcscopeError

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_MOST_BYTES = 1 << 40


class SharedMemory:
    """One mapped memfd. `bytes` and `words` (64 bits each) are the same memory."""

    def __init__(self, fd: int) -> None:
        """Map `fd`, and own it from now on."""
        self.fd = fd
        self.size_bytes = os.fstat(fd).st_size
        self._map = mmap.mmap(fd, self.size_bytes)
        self.bytes = memoryview(self._map)
        self.words = self.bytes.cast("Q")

    @classmethod
    def create(cls, name: str, size_bytes: int) -> SharedMemory:
        """Make a memfd of zeros, closed on exec. Pages that are never written cost nothing."""
        fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, size_bytes)
        # Who maps a file that somebody shortens gets SIGBUS.
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        return cls(fd)

    def close(self) -> None:
        """Unmap and close the memory, of which nobody may hold a slice any more."""
        self.words.release()
        self.bytes.release()
        self._map.close()
        os.close(self.fd)


def read_header(fd: int, what: str, size_bytes: int) -> memoryview:
    """Return the first words of a memfd that somebody else has made.

    Raises ProcscopeError where `fd` is no memfd of a fixed size, or is shorter.
    """
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        header = os.pread(fd, size_bytes, 0)
    except OSError as error:
        raise unknown(what, error.strerror or str(error)) from None
    if seals & _SEALS != _SEALS:
        raise unknown(what, "its size is not fixed")
    if len(header) < size_bytes or os.fstat(fd).st_size > _MOST_BYTES:
        raise unknown(what, "its size is wrong")
    return memoryview(header).cast("Q")


def unknown(what: str, why: str) -> ProcscopeError:
    """Return the error for a memory that this release cannot use."""
    return ProcscopeError(
        f"the {what} that were handed over cannot be used: {why}",
        hint="they may come from another release; `procscope serve` makes new ones",
    )
