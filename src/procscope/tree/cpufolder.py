"""`sys/devices/system/cpu`: the host's folder, cut to the CPUs that a container sees.

Modes, owners and symbolic links are the host's own; contents go through `views.cpu_sysfs`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterator

from procscope.fuse.filesystem import Attributes, DirEntry, Entry
from procscope.ids import CpuId, NodeId
from procscope.tree.nodeids import SysfsPaths
from procscope.views import cpu_sysfs

_VALID_NS = 1_000_000_000
_TYPE_SHIFT = 12
"""DT_* is the file type of a mode without its lower bits."""
_MAX_FILE_BYTES = 1 << 20


class CpuFolder:
    """The nodes below the host's `SYS/devices/system/cpu`, by path relative to it."""

    def __init__(self, sys: str, paths: type[SysfsPaths] = SysfsPaths) -> None:
        """`paths` says how nodes are numbered."""
        self._directory = f"{sys}/devices/system/cpu"
        self._paths = paths(self._directory)
        self.root = self._paths.nodeid("")
        self._last_lists: dict[NodeId, tuple[Collection[CpuId], bytes]] = {}
        """For which CPUs each file that tells of nothing else was made last, and its content."""

    def lookup(self, parent: NodeId, name: str, visible: Collection[CpuId]) -> Entry:
        """Return the entry of `name` in the folder `parent`. Raises OSError."""
        if name in (".", "..") or "/" in name:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        folder = self.path(parent, visible)
        return self._entry(f"{folder}/{name}" if folder else name, visible)

    def attributes(self, nodeid: NodeId, visible: Collection[CpuId]) -> Attributes:
        """Return the host's attributes of the node. Raises OSError."""
        return self._attributes(self.path(nodeid, visible))

    def readlink(self, nodeid: NodeId, visible: Collection[CpuId]) -> bytes:
        """Return the target of a symbolic link as it stands on the host. Raises OSError."""
        return os.fsencode(os.readlink(self._host_path(self.path(nodeid, visible))))

    def is_visible_list(self, nodeid: NodeId) -> bool:
        """Tell whether a file tells of the visible CPUs, and of nothing else."""
        path = self._paths.path(nodeid)
        return path is not None and cpu_sysfs.visible_list(path, ()) is not None

    def read(self, nodeid: NodeId, visible: Collection[CpuId], *, whole: bool) -> bytes:
        """Return the content of a file, the host's own where `whole`. Raises OSError."""
        last = self._last_lists.get(nodeid)
        if last is not None and last[0] is visible and not whole:
            return last[1]
        path = self.path(nodeid, visible)
        if not whole and (listed := cpu_sysfs.visible_list(path, visible)) is not None:
            self._last_lists[nodeid] = visible, listed
            return listed
        content = self._read_host(path)
        if whole:
            return content
        try:
            return cpu_sysfs.render(path, content, visible)
        except ValueError:
            # Not in the format that would have to be cut: a list of nothing tells nothing.
            return b"\n"

    def list(
        self, nodeid: NodeId, visible: Collection[CpuId], offset: int, *, plus: bool
    ) -> Iterator[DirEntry]:
        """Yield the entries of a folder after the first `offset`, with `.` and `..` first."""
        folder = self.path(nodeid, visible)
        parent = self._paths.nodeid(folder.rpartition("/")[0])
        dots = [DirEntry(nodeid, stat.S_IFDIR >> _TYPE_SHIFT, b".")]
        dots.append(DirEntry(parent, stat.S_IFDIR >> _TYPE_SHIFT, b".."))
        yield from dots[offset:]
        with os.scandir(self._host_path(folder)) as entries:
            names = sorted(entry.name for entry in entries)
        children = (f"{folder}/{name}" if folder else name for name in names)
        shown = [child for child in children if not self._hidden(child, visible)]
        for child in shown[max(0, offset - len(dots)) :]:
            found = self._dir_entry(child, visible, plus=plus)
            if found is not None:
                yield found

    def path(self, nodeid: NodeId, visible: Collection[CpuId]) -> str:
        """Return the path of a node. Raises OSError(ENOENT) where the reader has no such CPU."""
        cpu = self._paths.cpu(nodeid)
        path = self._paths.path(nodeid)
        if path is None or (cpu is not None and cpu not in visible):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return path

    def _host_path(self, path: str) -> str:
        return f"{self._directory}/{path}" if path else self._directory

    def _read_host(self, path: str) -> bytes:
        # The host's files are regular; a link that took a file's place is not followed.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(self._host_path(path), flags)
        try:
            parts: list[bytes] = []
            while len(parts) < _MAX_FILE_BYTES // 4096 and (part := os.read(fd, 4096)):
                parts.append(part)
            return b"".join(parts)
        finally:
            os.close(fd)

    def _hidden(self, path: str, visible: Collection[CpuId]) -> bool:
        related = cpu_sysfs.related_cpus_path(path)
        if related is None:
            return cpu_sysfs.is_hidden(path, visible)
        try:
            return cpu_sysfs.is_hidden(path, visible, self._read_host(related))
        except OSError:
            return cpu_sysfs.is_hidden(path, visible)

    def _entry(self, path: str, visible: Collection[CpuId]) -> Entry:
        if self._hidden(path, visible):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        attributes = self._attributes(path)
        return Entry(attributes, 0 if _depends_on_reader(path) else _VALID_NS)

    def _dir_entry(self, path: str, visible: Collection[CpuId], *, plus: bool) -> DirEntry | None:
        try:
            entry = self._entry(path, visible)
        except OSError:
            return None  # gone since the folder was listed
        return DirEntry(
            entry.attributes.nodeid,
            stat.S_IFMT(entry.attributes.mode) >> _TYPE_SHIFT,
            os.fsencode(path.rpartition("/")[2]),
            entry if plus else None,
        )

    def _attributes(self, path: str) -> Attributes:
        found = os.lstat(self._host_path(path))
        return Attributes(
            nodeid=self._paths.nodeid(path),
            mode=found.st_mode,
            nlink=found.st_nlink,
            uid=found.st_uid,
            gid=found.st_gid,
            size_bytes=found.st_size,
            mtime_ns=found.st_mtime_ns,
            valid_ns=_VALID_NS,
        )


def _depends_on_reader(path: str) -> bool:
    """Tell whether some readers see this name and others do not: then it is never cached."""
    folder, _, name = path.rpartition("/")
    return (not folder and name.startswith("cpu")) or folder == "cpufreq"
