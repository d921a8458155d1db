"""Where the contents of open files are kept: the tree's side of the bargain."""

from __future__ import annotations

from typing import Protocol

from procscope.ids import FileHandle


class ContentStore(Protocol):
    """Contents by file handle, shared by all workers."""

    def put(self, content: bytes, opener: int = 0, owner: int = 0) -> FileHandle:
        """Keep a content for the OPEN of number `opener` by container number `owner`.

        0 where there is no room for it.
        """
        ...

    def get(self, handle: FileHandle) -> bytes | None:
        """Return a kept content, None where the handle is not known."""
        ...

    def read(self, handle: FileHandle, offset: int, size: int) -> bytes | None:
        """Return at most `size` bytes of it from `offset` on, None where it is not known."""
        ...

    def owner(self, handle: FileHandle) -> int | None:
        """Return which container's it is, None where the handle is not known."""
        ...

    def replace(self, handle: FileHandle, content: bytes) -> bool:
        """Put newer content in its place; False where that was not possible.

        Where there is no room for it, the older content is kept no longer.
        """
        ...

    def count_read_from_start(self, handle: FileHandle, reader: int = 0) -> int:
        """Return how often it was read from its start before READ number `reader`.

        0 where the same READ is answered once more.
        """
        ...

    def release(self, handle: FileHandle) -> None:
        """Keep it no longer."""
        ...

    def recent(self, name: str, max_age_ns: int) -> bytes | None:
        """Return what was last noted as `name` by any worker, if that is no older; else None."""
        ...

    def note(self, name: str, content: bytes, began_ns: int) -> None:
        """Keep a rendering, begun at `began_ns` (monotonic), that is about to be given out."""
        ...
