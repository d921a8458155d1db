"""The pinned tree: the view of the container that has looked the path up, whoever reads it later.

`proc` and `sys` are links, and lead who follows them into the folder of his container, as
`/proc/self` does. What a runtime's init mounts from there stays that container's. Whoever is in no
container is led to the live tree, which chooses at each open.

The kernel opens files by itself and reads them into its page cache: nobody asks this tree for what
was read within the time to live.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple, NoReturn

from procscope.containers.container import Container
from procscope.containers.identity import WholeContainerFinder
from procscope.fuse.filesystem import Attributes, Caller, DirEntry, Entry, Opened, StatFs
from procscope.fuse.replies import attr_out
from procscope.ids import FileHandle, NodeId, Pid
from procscope.observe.container import Limits
from procscope.observe.observatory import Observatory
from procscope.observe.registry import View
from procscope.tree.copying import QUIET_NS, Copying
from procscope.tree.cpufolder import CpuFolder
from procscope.tree.nodeids import ROOT
from procscope.tree.pinnedcontents import Made, PinnedContents
from procscope.tree.pinnedids import PinnedPaths, is_sysfs_part, join, named_part, split
from procscope.tree.pins import Pin, Pins
from procscope.tree.snapshots import Snapshot, Snapshots, SnapshotStore
from procscope.values import replace

LIMITS_VALID_NS: Final = 100_000_000
"""How long the kernel answers by itself, for files that change with the limits alone."""
MOVING_VALID_NS: Final = 1_000_000
"""The same for all others. The kernel counts in ticks, and rounds up."""
_VALID_NS: Final = 3600 * 1_000_000_000
_CPU_FOLDER: Final = "sys/devices/system/cpu"
_LINKS: Final = {NodeId(2): "proc", NodeId(3): "sys"}
_LINK_IDS: Final = {name: nodeid for nodeid, name in _LINKS.items()}
_TYPE_SHIFT: Final = 12


def _nothing(pid: Pid) -> None:
    """Count nothing."""
    del pid


class _Shown(NamedTuple):
    """What the kernel is told of a file."""

    snapshot: Snapshot
    is_of_new_size: bool = False
    is_old: bool = False
    """Whether there is a newer one, of another size, that has to wait."""


class _Told(NamedTuple):
    """What the kernel was last told of a file, and the limits with which it still holds."""

    packed: bytes
    limits: Limits


class PinnedTree:
    """The files of every container; implements `procscope.fuse.filesystem.Filesystem`."""

    def __init__(
        self,
        observatory: Observatory,
        identifier: WholeContainerFinder,
        pins: Pins,
        store: SnapshotStore,
        views: Mapping[str, View],
        *,
        with_cpu_folder: bool = True,
        on_outsider: Callable[[Pid], None] = _nothing,
    ) -> None:
        """`on_outsider` is called with each who walks a path from no container."""
        self._observatory = observatory
        self._identifier = identifier
        self._pins = pins
        self._snapshots = Snapshots(store)
        self._told: dict[NodeId, _Told] = {}
        self._copying = Copying()
        self._on_outsider = on_outsider
        self._cpu_folder = CpuFolder(observatory.host.sys, PinnedPaths)
        self._contents = PinnedContents(observatory, identifier, pins, self._cpu_folder)
        self._made_at_ns = time.time_ns()
        self._views: dict[NodeId, View] = {}
        self._folders: dict[NodeId, dict[str, NodeId]] = {named_part(""): {}}
        self._parents: dict[NodeId, NodeId] = {}
        for name, view in views.items():
            # An error of open(2) is all that tells of it, and no request tells of that here.
            if not view.errors_reach_reader:
                self._views[self._add(f"proc/{name}", named_part(f"proc/{name}"))] = view
        if with_cpu_folder:
            self._add(_CPU_FOLDER, self._cpu_folder.root)

    def sweep(self) -> bool:
        """Close what is kept for containers and readers that have gone; tell if any is kept."""
        self._pins.sweep()
        self._told.clear()
        self._copying.sweep()
        kept = [self._observatory.sweep(), self._identifier.sweep()]
        return any(kept)

    def close(self) -> None:
        """Close every file that is kept open between reads."""
        self._observatory.close()
        self._identifier.close()

    def _add(self, path: str, part: NodeId) -> NodeId:
        folder_path, _, name = path.rpartition("/")
        folder = named_part(folder_path)
        if folder not in self._folders:
            self._folders[folder] = {}
            self._add(folder_path, folder)
        self._folders[folder][name] = part
        self._parents[part] = folder
        return part

    def lookup(self, caller: Caller, parent: NodeId, name: bytes) -> Entry:
        """See `Filesystem.lookup`.

        A name stands for the same node whoever asks: what is mounted below a name that had
        another node before, the kernel would take away (`d_invalidate()` in fs/dcache.c).
        """
        text = os.fsdecode(name)
        if parent == ROOT:
            return Entry(self._root_entry(text), _VALID_NS)
        number, part = self._split(parent)
        if is_sysfs_part(part):
            entry = self._cpu_folder.lookup(part, text, self._contents.visible(caller, number))
            kept_ns = LIMITS_VALID_NS if self._contents.has_started(number) else 0
            valid_ns = max(entry.entry_valid_ns, kept_ns)
            return Entry(self._sysfs_attributes(caller, number, entry.attributes), valid_ns)
        child = self._folders.get(part, {}).get(text)
        if child is None:
            raise _no_entry(text)
        return Entry(self.getattr(caller, join(number, child), None), _VALID_NS)

    def getattr(self, caller: Caller, nodeid: NodeId, fh: FileHandle | None) -> Attributes:
        """See `Filesystem.getattr`: of a file, the content is made anew here."""
        del fh
        if nodeid == ROOT:
            return self._own_attributes(nodeid, stat.S_IFDIR | 0o555, nlink=2)
        if nodeid in _LINKS:
            return self._own_attributes(nodeid, stat.S_IFLNK | 0o777)
        number, part = self._split(nodeid)
        view = self._views.get(part)
        if view is not None:
            bare = Attributes(nodeid=nodeid, mode=stat.S_IFREG | view.mode)
            valid_ns = LIMITS_VALID_NS if view.follows_limits else MOVING_VALID_NS
            return self._file_attributes(caller, bare, valid_ns)
        if part in self._folders:
            return self._own_attributes(nodeid, stat.S_IFDIR | 0o555, nlink=2)
        if part == self._cpu_folder.root:
            return self._own_attributes(nodeid, stat.S_IFDIR | 0o755, nlink=2)
        if is_sysfs_part(part):
            found = self._cpu_folder.attributes(part, self._contents.visible(caller, number))
            return self._sysfs_attributes(caller, number, found)
        raise _stale()

    def known(self, nodeid: NodeId) -> bytes | None:
        """Return a fuse_attr_out, as `getattr` would; None where that has to find out.

        It is known of a file that only follows limits, as long as these have not changed.
        """
        told = self._told.get(nodeid)
        if told is None or not told.limits.hold():
            return None
        self._copying.answer(nodeid)
        return told.packed

    def access(self, caller: Caller, nodeid: NodeId, mask: int) -> None:
        """See `Filesystem.access`. The kernel checks modes itself (`default_permissions`)."""
        if mask & os.W_OK:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def readlink(self, caller: Caller, nodeid: NodeId) -> bytes:
        """See `Filesystem.readlink`: where the caller's own container is, or the live tree."""
        if nodeid in _LINKS:
            pin = self._pin_of(caller)
            if pin is None:
                self._on_outsider(caller.pid)
            return f"{'..' if pin is None else pin.name}/{_LINKS[nodeid]}".encode()
        number, part = self._split(nodeid)
        if not is_sysfs_part(part):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return self._cpu_folder.readlink(part, self._contents.visible(caller, number))

    def open(self, caller: Caller, nodeid: NodeId, flags: int) -> NoReturn:
        """See `Filesystem.open`. Never asked: the protocol layer has the kernel open by itself."""
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def read(
        self, pid: Pid, unique: int, nodeid: NodeId, fh: FileHandle, offset: int, size: int
    ) -> bytes | memoryview:
        """See `Filesystem.read`: of the content that the kernel has the attributes of."""
        snapshot = self._snapshots.get(nodeid)
        if snapshot is None:
            # Files are opened by the kernel itself: who may read them is its to say.
            made = self._render(Caller(pid, 0, 0, unique), nodeid)
            self._told.pop(nodeid, None)
            snapshot = self._snapshots.update(nodeid, made.content)
        self._copying.answer(nodeid)
        return snapshot.content[offset : offset + size]

    def release(self, nodeid: NodeId, fh: FileHandle) -> None:
        """See `Filesystem.release`. Never asked."""

    def opendir(self, caller: Caller, nodeid: NodeId) -> Opened:
        """See `Filesystem.opendir`. Folders are listed anew at each READDIR."""
        return FileHandle(0), 0

    def readdir(
        self, caller: Caller, nodeid: NodeId, fh: FileHandle, offset: int, plus: bool
    ) -> Iterable[DirEntry]:
        """See `Filesystem.readdir`. Attributes are not given: they would cost a rendering each."""
        if nodeid == ROOT:
            return list(self._root_entries())[offset:]
        number, part = self._split(nodeid)
        if is_sysfs_part(part):
            visible = self._contents.visible(caller, number)
            entries: Iterable[DirEntry] = self._cpu_folder.list(part, visible, offset, plus=False)
        elif part in self._folders:
            entries = list(self._own_entries(part))[offset:]
        else:
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return (replace(one, nodeid=join(number, one.nodeid)) for one in entries)

    def releasedir(self, caller: Caller, nodeid: NodeId, fh: FileHandle) -> None:
        """See `Filesystem.releasedir`."""

    def statfs(self, caller: Caller, nodeid: NodeId) -> StatFs:
        """See `Filesystem.statfs`: nothing is stored here."""
        return StatFs()

    def forget(self, nodeid: NodeId, nlookup: int) -> None:
        """See `Filesystem.forget`: what the kernel has cached of the node is gone."""
        self._told.pop(nodeid, None)
        self._copying.forget(nodeid)
        self._snapshots.forget(nodeid)

    def _split(self, nodeid: NodeId) -> tuple[int, NodeId]:
        found = split(nodeid)
        if found is None:
            raise _stale()
        return found

    def _root_entry(self, name: str) -> Attributes:
        link = _LINK_IDS.get(name)
        if link is not None and name in self._folders[named_part("")]:
            return self._own_attributes(link, stat.S_IFLNK | 0o777)
        pin = self._pins.of_name(name)
        if pin is None:
            raise _no_entry(name)
        nodeid = join(pin.number, named_part(""))
        return self._own_attributes(nodeid, stat.S_IFDIR | 0o555, nlink=2)

    def _root_entries(self) -> Iterator[DirEntry]:
        """Yield the links alone: nobody learns the names of containers' folders here."""
        yield DirEntry(ROOT, stat.S_IFDIR >> _TYPE_SHIFT, b".")
        yield DirEntry(ROOT, stat.S_IFDIR >> _TYPE_SHIFT, b"..")
        for name in self._folders[named_part("")]:
            nodeid = _LINK_IDS[name]
            yield DirEntry(nodeid, stat.S_IFLNK >> _TYPE_SHIFT, name.encode())

    def _own_entries(self, part: NodeId) -> Iterator[DirEntry]:
        folder, file = stat.S_IFDIR >> _TYPE_SHIFT, stat.S_IFREG >> _TYPE_SHIFT
        yield DirEntry(part, folder, b".")
        yield DirEntry(self._parents.get(part, part), folder, b"..")
        for name, child in self._folders[part].items():
            yield DirEntry(child, file if child in self._views else folder, os.fsencode(name))

    def _own_attributes(self, nodeid: NodeId, mode: int, *, nlink: int = 1) -> Attributes:
        return Attributes(
            nodeid=nodeid, mode=mode, nlink=nlink, mtime_ns=self._made_at_ns, valid_ns=_VALID_NS
        )

    def _sysfs_attributes(self, caller: Caller, number: int, found: Attributes) -> Attributes:
        """The attributes of what the host has in the CPU folder, `found` there."""
        bare = found._replace(nodeid=join(number, found.nodeid))
        if not stat.S_ISREG(found.mode):
            return bare
        return self._file_attributes(caller, bare, LIMITS_VALID_NS)

    def _file_attributes(self, caller: Caller, bare: Attributes, valid_ns: int) -> Attributes:
        """The attributes of a file with its content's size, and the time at which that changed."""
        self._told.pop(bare.nodeid, None)
        self._copying.let_arrive(bare.nodeid, caller.pid)
        try:
            made = self._render(caller, bare.nodeid)
            shown = self._shown(caller, bare.nodeid, made)
        except OSError:
            # Of a file that cannot be read there is no size. The kernel would take one of size 0
            # for empty without asking; so it asks, and the reader gets the error.
            return bare._replace(size_bytes=bare.blksize, valid_ns=0)
        self._copying.answer(bare.nodeid)
        attributes = bare._replace(
            size_bytes=len(shown.snapshot.content), mtime_ns=shown.snapshot.mtime_ns
        )
        if shown.is_old:
            return attributes._replace(valid_ns=QUIET_NS)
        attributes = attributes._replace(valid_ns=valid_ns if made.may_be_kept else 0)
        if made.limits is not None and not shown.is_of_new_size:
            self._told[bare.nodeid] = _Told(attr_out(attributes), made.limits)
        return attributes

    def _shown(self, caller: Caller, nodeid: NodeId, made: Made) -> _Shown:
        """Return what the kernel is told of: what was made, or still what it was told before."""
        if not made.is_of_pin or self._snapshots.size_bytes(nodeid) in (None, len(made.content)):
            return _Shown(self._snapshots.update(nodeid, made.content))
        # Who has just been started must not go by what was there before its limits were set.
        if made.may_be_kept and self._copying.has_new_size_wait(nodeid):
            before = self._snapshots.get(nodeid)
            if before is not None:
                return _Shown(before, is_old=True)
        self._copying.tell_new_size(nodeid, caller.pid)
        return _Shown(self._snapshots.update(nodeid, made.content), is_of_new_size=True)

    def _render(self, caller: Caller, nodeid: NodeId) -> Made:
        """Return the content of a file."""
        number, part = self._split(nodeid)
        view = self._views.get(part)
        if view is not None:
            return self._contents.of_view(caller, number, view)
        if not is_sysfs_part(part):
            raise _stale()
        return self._contents.of_cpu_file(caller, number, part)

    def _pin_of(self, caller: Caller) -> Pin | None:
        container: Container | None = self._identifier.whole_container_of(caller.pid)
        if container is None:
            return None
        try:
            return self._pins.of_lifetime(container, self._observatory.lifetime(container))
        except (OSError, ValueError):
            return None


def _no_entry(name: str) -> OSError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)


def _stale() -> OSError:
    return OSError(errno.ESTALE, os.strerror(errno.ESTALE))
