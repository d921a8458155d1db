"""Which volume a file comes from, where it is mounted, and what is in its way.

A file is not mounted into a container that has a mount of its own

- at the file: the container's author knows better;
- above it (`/proc`, `/sys` …): the runtime would have to make the file's place inside somebody's
  volume, or hide part of it;
- below it (`/sys/devices/system/cpu/online` under the CPU folder): the runtime would have to make
  the place for that mount inside the served, read-only folder.

Each file is decided on by itself: a container with its own `/proc/meminfo` gets the others.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, count
from typing import Any, Final

from procscope.inject.docker import CPU_FOLDER
from procscope.kubernetes.raw import table, tables, text
from procscope.tree.sources import Pinned

_MOUNT_LISTS: Final = (("volumeMounts", "mountPath"), ("volumeDevices", "devicePath"))


def volume_name(file: str) -> str:
    """The name of a file's volume: `procscope-proc-meminfo`. A DNS label, as it has to be."""
    return "procscope-" + file.replace("/", "-")


def host_path(file: str, mountpoint: str, pinned: Pinned = Pinned.NONE) -> dict[str, str]:
    """The source of a file's volume; `pinned` says which files come from the pinned tree.

    With a type, since without one the runtime makes an empty directory where nothing is served.
    """
    kind = "Directory" if file == CPU_FOLDER else "File"
    return {"path": f"{mountpoint}/{pinned.source(file)}", "type": kind}


def mount_path(file: str) -> str:
    """Where the file is mounted in a container."""
    return "/" + file


def existing_volume(volumes: Sequence[Mapping[str, Any]], file: str, mountpoint: str) -> str | None:
    """The name of the pod's volume that is this file, of whichever tree; None if it has none.

    See `raw`.
    """
    sources = [host_path(file, mountpoint, pinned) for pinned in (Pinned.NONE, Pinned.ALL)]
    for volume in volumes:
        found = table(volume, "hostPath")
        if {key: found.get(key) for key in ("path", "type")} in sources:
            return text(volume, "name")
    return None


def free_name(volumes: Sequence[Mapping[str, Any]], file: str) -> str:
    """A name for the file's volume that no other volume has: the same for the same volumes."""
    taken = {text(volume, "name") for volume in volumes}
    names = chain([volume_name(file)], (f"{volume_name(file)}-{number}" for number in count(2)))
    return next(name for name in names if name not in taken)


def own_mounts(container: Mapping[str, Any]) -> dict[str, str]:
    """Paths at which the container mounts something, and the volume's name. Raises MalformedError.

    The paths are absolute and plain: the kubelet puts `/` before one that is relative.
    """
    return {
        posixpath.normpath("/" + text(mount, path_key).lstrip("/")): text(mount, "name")
        for list_key, path_key in _MOUNT_LISTS
        for mount in tables(container, list_key)
    }


def in_the_way(file: str, paths: Iterable[str]) -> list[str]:
    """Those of a container's mounts for which the file is not mounted; see above."""
    target = mount_path(file)
    return [path for path in paths if _within(target, path) or _within(path, target)]


def _within(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")
