"""The live tree: at each open, the view of the container that opens.

A content is fixed when the file is opened, and whole whatever sizes it is read in. Reading again
from the start of the same open file gives fresh content, as procfs does.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple, cast

from procscope.containers.container import Container
from procscope.containers.identity import ContainerFinder
from procscope.fuse import permissions
from procscope.fuse.filesystem import Attributes, Caller, DirEntry, Entry, Opened, StatFs
from procscope.fuse.wire import FOPEN_DIRECT_IO, FOPEN_NOFLUSH
from procscope.ids import ContainerKey, CpuId, FileHandle, NodeId, Pid
from procscope.observe.boottime import NS_PER_TICK, boottime_ns
from procscope.observe.observatory import Observatory
from procscope.observe.registry import View
from procscope.tree.content import ContentStore
from procscope.tree.cpufolder import CpuFolder
from procscope.tree.nodeids import is_sysfs, named_nodeid

_VALID_NS = 3600 * 1_000_000_000
"""The mount's own names and their attributes never change while it is mounted."""
REUSE_NS = NS_PER_TICK
"""How old a rendering for a container may be when it is given out once more."""
_ONE_CALL_NS = 1_000_000
"""A process cannot end, and its pid be another's, in this time; that takes a wrap of all pids."""
_OWNER_DIGITS = 15
_OWNERS = 64
"""Whose numbers are at hand."""
_MAY_READ = frozenset((0, permissions.HIDDEN_ID))
"""Root, and whom the kernel has let in."""
_OPEN_FLAGS = FOPEN_DIRECT_IO | FOPEN_NOFLUSH
_CPU_FOLDER = "sys/devices/system/cpu"
_SELF = "self"
_EVERY_CPU = cast("Collection[CpuId]", range(1 << 16))
"""What a reader on the host sees, CPUs that are offline included."""
_TYPE_SHIFT = 12


class _Asked(NamedTuple):
    """Who has asked for the attributes of a file, and the container that this one was found in."""

    pid: Pid
    nodeid: NodeId
    container: Container | None
    at_ns: int


class LiveTree:
    """The mount's files and folders; implements `procscope.fuse.filesystem.Filesystem`."""

    def __init__(
        self,
        observatory: Observatory,
        identifier: ContainerFinder,
        contents: ContentStore,
        views: Mapping[str, View],
        *,
        with_cpu_folder: bool = True,
        with_self: bool = False,
        reuse_ns: int = REUSE_NS,
    ) -> None:
        self._reuse_ns = reuse_ns
        self._observatory = observatory
        self._identifier = identifier
        identifier.tell_of_new_readers(observatory.see_again)
        self._contents = contents
        self._cpu_folder = CpuFolder(observatory.host.sys)
        self._made_at_ns = time.time_ns()
        self._asked: _Asked | None = None
        self._views: dict[NodeId, View] = {}
        self._folders: dict[NodeId, dict[str, NodeId]] = {named_nodeid(""): {}}
        self._links: dict[NodeId, str] = {}
        self._parents: dict[NodeId, NodeId] = {}
        for name, view in views.items():
            self._views[self._add(f"proc/{name}", named_nodeid(f"proc/{name}"))] = view
        if with_cpu_folder:
            self._add(_CPU_FOLDER, self._cpu_folder.root)
        if with_self:
            self._add_self()

    def sweep(self) -> bool:
        """Close what is kept for containers and readers that have gone; tell if any is kept."""
        kept = [self._observatory.sweep(), self._identifier.sweep()]
        return any(kept)

    def close(self) -> None:
        """Close every file that is kept open between reads."""
        self._observatory.close()
        self._identifier.close()

    def _add(self, path: str, nodeid: NodeId) -> NodeId:
        """Add a name, and the folders above it."""
        folder_path, _, name = path.rpartition("/")
        folder = named_nodeid(folder_path)
        if folder not in self._folders:
            self._folders[folder] = {}
            self._add(folder_path, folder)
        self._folders[folder][name] = nodeid
        self._parents[nodeid] = folder
        return nodeid

    def _add_self(self) -> None:
        """Add the folder on which the pinned tree is mounted.

        Its id never changes, or the kernel would take that mount away at the next walk
        (d_invalidate() in fs/dcache.c). Below the mount, and seen while there is none, are links
        to this tree: a path into the pinned one leads to the file whatever becomes of it.
        """
        self._folders[self._add(_SELF, named_nodeid(_SELF))] = {}
        for name in [name for name in self._folders[named_nodeid("")] if name != _SELF]:
            path = f"{_SELF}/{name}"
            self._links[self._add(path, named_nodeid(path))] = f"../{name}"

    def lookup(self, caller: Caller, parent: NodeId, name: bytes) -> Entry:
        """See `Filesystem.lookup`."""
        text = os.fsdecode(name)
        if is_sysfs(parent):
            return self._cpu_folder.lookup(parent, text, self._visible(caller))
        nodeid = self._folders.get(parent, {}).get(text)
        if nodeid is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), text)
        is_view = nodeid in self._views
        if is_view:
            self._observatory.track(self._container(caller))
        return Entry(self.getattr(caller, nodeid, None), _name_valid_ns(is_view))

    def getattr(self, caller: Caller, nodeid: NodeId, fh: FileHandle | None) -> Attributes:
        """See `Filesystem.getattr`."""
        view = self._views.get(nodeid)
        if view is not None:
            return self._view_attributes(caller, nodeid, view, fh)
        if nodeid in self._folders:
            return self._own_attributes(nodeid, stat.S_IFDIR | 0o555, nlink=2)
        if nodeid == self._cpu_folder.root:
            return self._own_attributes(nodeid, stat.S_IFDIR | 0o755, nlink=2)
        if nodeid in self._links:
            return self._own_attributes(nodeid, stat.S_IFLNK | 0o777, nlink=1)
        if is_sysfs(nodeid):
            return self._cpu_folder.attributes(nodeid, self._visible(caller))
        raise _stale()

    def access(self, caller: Caller, nodeid: NodeId, mask: int) -> None:
        """See `Filesystem.access`."""
        permissions.check(caller, self._mode(caller, nodeid), mask)

    def readlink(self, caller: Caller, nodeid: NodeId) -> bytes:
        """See `Filesystem.readlink`."""
        if nodeid in self._links:
            return self._links[nodeid].encode()
        if not is_sysfs(nodeid):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return self._cpu_folder.readlink(nodeid, self._visible(caller))

    def open(self, caller: Caller, nodeid: NodeId, flags: int) -> Opened:
        """See `Filesystem.open`: the content is rendered here, once."""
        if caller.uid not in _MAY_READ:
            permissions.check(caller, self._mode(caller, nodeid), os.R_OK)
        container = self._container_of_open(caller, nodeid)
        content = self._render(container, nodeid)
        return self._contents.put(content, caller.unique, _owner_of(container)), _OPEN_FLAGS

    def read(
        self, pid: Pid, unique: int, nodeid: NodeId, fh: FileHandle, offset: int, size: int
    ) -> bytes | memoryview:
        """See `Filesystem.read`."""
        if offset == 0 and self._contents.count_read_from_start(fh, unique) and pid:
            container = self._identifier.container_of(pid)
            fresh = self._render(container, nodeid)
            if self._contents.owner(fh) != _owner_of(container):
                # The file was opened in another container, and handed over: what is kept stays
                # that one's, which may read on.
                return fresh[:size]
            self._contents.replace(fh, fresh)
        piece = self._contents.read(fh, offset, size)
        if piece is not None:
            return piece
        # More files are open than contents can be kept for: better a file that is of two moments
        # for those who read it piecemeal than none.
        return self._render(self._identifier.container_of(pid), nodeid)[offset : offset + size]

    def release(self, nodeid: NodeId, fh: FileHandle) -> None:
        """See `Filesystem.release`."""
        self._contents.release(fh)

    def opendir(self, caller: Caller, nodeid: NodeId) -> Opened:
        """See `Filesystem.opendir`. Folders are listed anew at each READDIR."""
        return FileHandle(0), 0

    def readdir(
        self, caller: Caller, nodeid: NodeId, fh: FileHandle, offset: int, plus: bool
    ) -> Iterable[DirEntry]:
        """See `Filesystem.readdir`."""
        if is_sysfs(nodeid):
            return self._cpu_folder.list(nodeid, self._visible(caller), offset, plus=plus)
        if nodeid in self._views or nodeid in self._links:
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if nodeid not in self._folders:
            raise _stale()
        return list(self._own_entries(caller, nodeid, plus=plus))[offset:]

    def releasedir(self, caller: Caller, nodeid: NodeId, fh: FileHandle) -> None:
        """See `Filesystem.releasedir`."""

    def statfs(self, caller: Caller, nodeid: NodeId) -> StatFs:
        """See `Filesystem.statfs`: nothing is stored here."""
        return StatFs()

    def forget(self, nodeid: NodeId, nlookup: int) -> None:
        """See `Filesystem.forget`: node ids are computed, none is held."""

    def _own_entries(self, caller: Caller, nodeid: NodeId, *, plus: bool) -> Iterator[DirEntry]:
        folder = stat.S_IFDIR >> _TYPE_SHIFT
        yield DirEntry(nodeid, folder, b".")
        yield DirEntry(self._parents.get(nodeid, nodeid), folder, b"..")
        for name, child in self._folders[nodeid].items():
            is_view = child in self._views
            entry: Entry | None = None
            if plus:
                entry = Entry(self.getattr(caller, child, None), _name_valid_ns(is_view))
            yield DirEntry(child, self._file_type(child), os.fsencode(name), entry)

    def _file_type(self, nodeid: NodeId) -> int:
        if nodeid in self._views:
            return stat.S_IFREG >> _TYPE_SHIFT
        return (stat.S_IFLNK if nodeid in self._links else stat.S_IFDIR) >> _TYPE_SHIFT

    def _mode(self, caller: Caller, nodeid: NodeId) -> int:
        view = self._views.get(nodeid)
        return self.getattr(caller, nodeid, None).mode if view is None else view.mode

    def _own_attributes(self, nodeid: NodeId, mode: int, *, nlink: int) -> Attributes:
        return Attributes(
            nodeid=nodeid, mode=mode, nlink=nlink, mtime_ns=self._made_at_ns, valid_ns=_VALID_NS
        )

    def _view_attributes(
        self, caller: Caller, nodeid: NodeId, view: View, fh: FileHandle | None
    ) -> Attributes:
        """The attributes of a view with its true size, that of the content where it is open.

        Unlike procfs, whose files have size 0: the kernel would take a FUSE file of that size for
        empty in sendfile(2) and splice(2) (filemap_splice_read(), Linux 6.5), which is how
        busybox copies, without asking.
        """
        content = self._contents.get(fh) if fh is not None else None
        if content is not None:
            size_bytes = len(content)
        else:
            container = self._container(caller)
            self._asked = _Asked(caller.pid, nodeid, container, time.monotonic_ns())
            size_bytes = self._observatory.size(view, container)
        return Attributes(
            nodeid=nodeid,
            mode=stat.S_IFREG | view.mode,
            size_bytes=size_bytes,
            mtime_ns=self._made_at_ns,
            # All containers share the inode: what the kernel kept of one's size, it would tell
            # another.
            valid_ns=0,
        )

    def _container_of_open(self, caller: Caller, nodeid: NodeId) -> Container | None:
        """Return the container of who opens, looked up once for all requests of an open(2).

        Where the kernel checks modes itself the first of them is GETATTR, directly before OPEN, so
        that the caller was found there while it was in this very call.
        """
        asked = self._asked
        if asked is None:
            return self._identifier.container_of(caller.pid)
        self._asked = None
        if (
            asked.pid == caller.pid
            and asked.nodeid == nodeid
            and time.monotonic_ns() - asked.at_ns < _ONE_CALL_NS
        ):
            return asked.container
        return self._container(caller)

    def _container(self, caller: Caller) -> Container | None:
        return self._identifier.container_of(caller.pid)

    def _visible(self, caller: Caller) -> Collection[CpuId]:
        """The CPUs that the caller sees; on the host also those that are offline."""
        container = self._container(caller)
        return _EVERY_CPU if container is None else self._observatory.visible_cpus(container)

    def _render(self, container: Container | None, nodeid: NodeId) -> bytes:
        view = self._views.get(nodeid)
        if view is None:
            return self._render_cpu_file(container, nodeid)
        if container is None:
            return self._observatory.render(view, None)
        max_age_ns = self._reuse_ns
        if view.by_ticks:
            # Of two views that move together, none may tell of an earlier tick than the other has.
            max_age_ns = min(max_age_ns, boottime_ns() % NS_PER_TICK)
        lifetime = self._observatory.known_lifetime(container)
        if lifetime is not None:
            recent = self._contents.recent(f"{lifetime}/{view.name}", max_age_ns)
            if recent is not None:
                return recent
        began_ns = time.monotonic_ns()
        content = self._observatory.render(view, container)
        lifetime = self._observatory.known_lifetime(container)
        if lifetime is not None:
            self._contents.note(f"{lifetime}/{view.name}", content, began_ns)
        return content

    def _render_cpu_file(self, container: Container | None, nodeid: NodeId) -> bytes:
        if not is_sysfs(nodeid):
            raise _stale()
        visible = _EVERY_CPU if container is None else self._observatory.visible_cpus(container)
        return self._cpu_folder.read(nodeid, visible, whole=container is None)


def _name_valid_ns(is_view: bool) -> int:
    """Return how long the kernel may use a name without asking again.

    A view is asked for at each walk, so that a runtime that bind-mounts it from inside a new
    container makes the container known. Reads through that mount do not walk here.
    """
    return 0 if is_view else _VALID_NS


def _owner_of(container: Container | None) -> int:
    """Return a number by which every worker knows a container's open files; 0 is the host."""
    return 0 if container is None else _number_of(container.key)


@lru_cache(maxsize=_OWNERS)
def _number_of(key: ContainerKey) -> int:
    return 1 + int(key[:_OWNER_DIGITS], 16)


def _stale() -> OSError:
    return OSError(errno.ESTALE, os.strerror(errno.ESTALE))
