"""The open files of cgroups: opened once, re-read in place, dropped when the cgroup goes.

kernfs makes a file's text anew for a read at offset 0 (`kernfs_fop_read_iter()` in the kernel's
`fs/kernfs/file.c`), so that one pread is one fresh value. After the cgroup was removed the same
read fails with ENODEV.
"""

from __future__ import annotations

import errno
import os
import resource
import time
from collections.abc import Callable
from typing import Literal, Protocol

from procscope.cgroup.model import Missing

FIRST_BUFFER_BYTES = 4096
LARGEST_FILE_BYTES = 64 << 20
"""No cgroup file comes near it; a longer one is refused instead of read without end."""
ABSENT_SECONDS = 0.5
"""How long a missing file is not looked for again. A controller can be switched on later
(`cgroup.subtree_control`), and a changed limit must show within a second."""

RUN_OUT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What an open fails with where this process, or the host, has run out of something: that says
nothing of the file."""
FOR_EVER = float("inf")
"""On any clock."""
NoContent = Literal[Missing.ABSENT, Missing.UNREADABLE]
Content = bytes | NoContent
Clock = Callable[[], float]


class CgroupGone(OSError):  # noqa: N818 - says what happened, not that someone erred
    """The cgroup was removed, or removed and made again, since it was first looked at."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.ENODEV, os.strerror(errno.ENODEV), path)


class KeptFile(Protocol):
    """A file that is kept open because it will be wanted again, and can be opened again."""

    @property
    def fd(self) -> int:
        """Its descriptor, below 0 while it is closed."""
        ...

    @property
    def is_held(self) -> bool:
        """Whether its descriptor is in use for more than one call, and must not be closed."""
        ...

    def close(self) -> None:
        """Close it, and tell its budget."""
        ...


class FileBudget:
    """An upper bound to the files that one process keeps open, those of all cgroups above all.

    Past it the file that was used longest ago is closed; its next use opens it again. While far
    fewer are open nobody writes down which was used when. Not for use by several threads at once.
    """

    __slots__ = ("_open", "is_tight", "max_open")

    def __init__(self, max_open: int | None = None) -> None:
        """`max_open` None: half of what RLIMIT_NOFILE allows."""
        self.max_open = max_open if max_open is not None else _half_of_the_limit()
        self.is_tight = False
        """Whether so many are open that which of them was used last is soon of consequence: to
        write it down touches three other files' objects, which are in no cache."""
        self._open: dict[KeptFile, None] = {}
        """The one that was used longest ago first. An OrderedDict is half a kilobyte more for each
        container."""

    def __len__(self) -> int:
        return len(self._open)

    def add(self, file: KeptFile) -> None:
        """Count `file`, just opened, and close the oldest other ones beyond the bound."""
        self._open[file] = None
        self.is_tight = len(self._open) > self.max_open * 7 // 8
        while len(self._open) > max(1, self.max_open):
            others = (one for one in self._open if not one.is_held and one is not file)
            oldest = next(others, None)
            if oldest is None:
                # As soon as what is held is free again, the next file that is opened closes both.
                break
            oldest.close()

    def used(self, file: KeptFile) -> None:
        """Note that `file` was used just now, if it is counted and that is of consequence."""
        if self.is_tight and file in self._open:
            del self._open[file]
            self._open[file] = None

    def discard(self, file: KeptFile) -> None:
        """Count `file` no longer."""
        self._open.pop(file, None)

    def give_up_one(self) -> bool:
        """Close the file used longest ago; False where none is open whose number can be had again.

        Where the limit was lowered below what is open, closing a file above it is of no use.
        """
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limit == resource.RLIM_INFINITY:
            limit = 1 << 62
        below = (file for file in self._open if file.fd < limit and not file.is_held)
        found = next(below, None)
        if found is None:
            return False
        found.close()
        return True


class KernelFile:
    """One file of one cgroup."""

    __slots__ = ("__weakref__", "_directory", "buffer_bytes", "fd", "name")

    is_held = False

    def __init__(self, directory: CgroupDirectory, name: str) -> None:
        self.name = name
        self._directory = directory
        self.fd = -1
        self.buffer_bytes = FIRST_BUFFER_BYTES

    def read(self) -> bytes:
        """Return the whole content as it is now: one pread once the file is open.

        Raises CgroupGone, FileNotFoundError where a living cgroup has no such file, or the
        OSError that the kernel gave.
        """
        if self.fd < 0:
            self._open()
        elif self._directory.budget.is_tight:
            self._directory.budget.used(self)
        try:
            content = os.pread(self.fd, self.buffer_bytes, 0)
            return content if len(content) < self.buffer_bytes else self._read_longer()
        except OSError as error:
            if error.errno not in (errno.ENODEV, errno.ENOENT):
                raise
            self.close()
            raise CgroupGone(self._directory.path) from error

    def _read_longer(self) -> bytes:
        """A full buffer may be a cut text: read again from the start with a larger one.

        Reading on at an offset would join two texts of different instants.
        """
        while self.buffer_bytes < LARGEST_FILE_BYTES:
            self.buffer_bytes *= 2
            content = os.pread(self.fd, self.buffer_bytes, 0)
            if len(content) < self.buffer_bytes:
                return content
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), self.name)

    def _open(self) -> None:
        budget = self._directory.budget
        path = f"{self._directory.path}/{self.name}"
        try:
            fd = open_for_reading(path, budget)
        except (FileNotFoundError, NotADirectoryError):
            self._directory.check()
            raise
        try:
            # The path may have been removed and made again: then this is another cgroup's file.
            self._directory.check()
        except CgroupGone:
            os.close(fd)
            raise
        self.fd = fd
        budget.add(self)

    def close(self) -> None:
        """Close the descriptor, if one is open; the next read opens the file again."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            self._directory.trace.closed += 1
            self._directory.budget.discard(self)
            os.close(fd)


class Trace:
    """What a value is made of, while it is made: the files that are read, for `Kept`."""

    __slots__ = ("_at_hand", "closed", "texts", "until")

    def __init__(self) -> None:
        self.texts: dict[KernelFile, bytes] | None = None
        """What was read; None while nothing is traced."""
        self.until = FOR_EVER
        """When a file that was missing is looked for again."""
        self.closed = 0
        """How many of the container's files were closed: descriptors that were noted before that
        may be other files by now."""
        self._at_hand: dict[KernelFile, bytes] = {}

    def begin(self, at_hand: dict[KernelFile, bytes]) -> None:
        """Note what is read from now on. Texts `at_hand`, just read whole, are not read again."""
        assert self.texts is None, "one value's inputs would be lost to another's"
        self.texts, self.until, self._at_hand = {}, FOR_EVER, at_hand

    def end(self) -> None:
        """Note nothing more."""
        self.texts, self._at_hand = None, {}

    def read(self, file: KernelFile) -> bytes:
        """Do as `file.read`, and note it."""
        assert self.texts is not None
        text = self._at_hand.pop(file, None)
        if text is None:
            text = file.read()
        if self.texts.setdefault(file, text) != text:
            self.spoil()
        return text

    def miss(self, until: float) -> None:
        """Note that a file was missing, and is not looked for before `until`."""
        self.until = min(self.until, until)

    def spoil(self) -> None:
        """Note that the value holds for this moment only."""
        self.until = -FOR_EVER


class CgroupDirectory:
    """One cgroup's directory, told apart from a later one of the same path by its inode.

    Inode numbers of kernfs are handed out in a cycle with a generation in their upper half
    (kernel 5.5, commit 40430452fd5d), so that a cgroup made anew has another one.
    """

    __slots__ = ("_absent_until", "_clock", "_files", "budget", "device", "inode", "path", "trace")

    def __init__(
        self,
        path: str,
        budget: FileBudget,
        clock: Clock = time.monotonic,
        trace: Trace | None = None,
    ) -> None:
        """Raises CgroupGone where there is no such directory."""
        self.path = path
        self.budget = budget
        self._clock = clock
        self.trace = Trace() if trace is None else trace
        self._files: dict[str, KernelFile] = {}
        self._absent_until: dict[str, float] | None = None
        """By name; None while nothing was missing, as in most directories."""
        self.device, self.inode = _device_and_inode(path)

    def check(self) -> None:
        """Raise CgroupGone unless this very cgroup is still there."""
        if _device_and_inode(self.path) != (self.device, self.inode):
            raise CgroupGone(self.path)

    def exists(self) -> bool:
        """Whether this very cgroup is still there."""
        try:
            self.check()
        except CgroupGone:
            return False
        return True

    def read_or_raise(self, name: str) -> bytes:
        """Return the file `name`. Raises as `KernelFile.read`."""
        file = self._files.get(name)
        if file is None:
            file = self._files[name] = KernelFile(self, name)
        return file.read() if self.trace.texts is None else self.trace.read(file)

    def read(self, name: str) -> Content:
        """Return the file `name`, or why there is nothing.

        Raises CgroupGone, and OSError where this process has run out of something: that says
        nothing of the file, and a limit must not be taken for none.
        """
        absent_until = None if self._absent_until is None else self._absent_until.get(name)
        if absent_until is not None and self._clock() < absent_until:
            self.trace.miss(absent_until)
            return Missing.ABSENT
        try:
            content = self.read_or_raise(name)
        except CgroupGone:
            raise
        except FileNotFoundError:
            return self._note_absent(name)
        except OSError as error:
            if error.errno in RUN_OUT:
                raise
            self.trace.spoil()
            return Missing.UNREADABLE
        if self._absent_until is not None:
            self._absent_until.pop(name, None)
        return content

    def _note_absent(self, name: str) -> Literal[Missing.ABSENT]:
        """Look for the file `name` again in a while, and not before."""
        if self._absent_until is None:
            self._absent_until = {}
        self._absent_until[name] = until = self._clock() + ABSENT_SECONDS
        self.trace.miss(until)
        return Missing.ABSENT

    def close(self) -> None:
        """Close all files; a later read opens them again."""
        for file in self._files.values():
            file.close()
        # Each refers to this directory: what is left of a container must not wait for the
        # collector of cycles.
        self._files.clear()


class CgroupFiles:
    """The directories of one container, each made once though several controllers share it."""

    def __init__(self, budget: FileBudget, clock: Clock = time.monotonic) -> None:
        self._budget = budget
        self._clock = clock
        self._directories: list[CgroupDirectory] = []
        self.trace = Trace()

    def directory(self, path: str) -> CgroupDirectory:
        """Return the directory `path`. Raises CgroupGone where there is none."""
        for known in self._directories:
            if known.path == path:
                return known
        directory = CgroupDirectory(path, self._budget, self._clock, self.trace)
        self._directories.append(directory)
        return directory

    def read(self, directory: str, name: str) -> Content:
        """Return the file `name` of `directory`, or why there is nothing. Raises CgroupGone."""
        return self.directory(directory).read(name)

    def close(self) -> None:
        """Close all files; a later read opens them again."""
        for directory in self._directories:
            directory.close()


def _device_and_inode(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise CgroupGone(path) from error
    return status.st_dev, status.st_ino


def open_for_reading(path: str, budget: FileBudget) -> int:
    """Open `path`; where the process is out of descriptors, give up files of the budget."""
    return open_within(budget, path, os.O_RDONLY)


def open_within(budget: FileBudget, path: str, flags: int, mode: int = 0o600) -> int:
    """Do as os.open(), close-on-exec; out of descriptors, give up files of the budget.

    Raises OSError.
    """
    while True:
        try:
            return os.open(path, flags | os.O_CLOEXEC, mode)
        except OSError as error:
            if error.errno != errno.EMFILE or not budget.give_up_one():
                raise


def _half_of_the_limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 19 if soft == resource.RLIM_INFINITY else max(8, soft // 2)
