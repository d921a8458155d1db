"""The containers of this host, found in its cgroup hierarchies, and one of them by id or name."""

from __future__ import annotations

import os
from collections.abc import Iterator

from procscope.cgroup.hierarchy import Hierarchies
from procscope.containers.container import Container, container_of_paths
from procscope.containers.names import names_of
from procscope.containers.runtimes import Match, match_path
from procscope.errors import ProcscopeError
from procscope.ids import CgroupPath
from procscope.linux.procfs import UNIFIED

_MIN_ID_PREFIX = 4
_MAX_SHOWN = 5


def list_containers(hierarchies: Hierarchies) -> Iterator[Container]:
    """Yield every container whose runtime is known, once."""
    found: dict[tuple[tuple[str, str], ...], dict[str, CgroupPath]] = {}
    for controller in (*sorted(hierarchies.v1), UNIFIED):
        root = hierarchies.directory(controller, CgroupPath("/"))
        if root is None:
            continue
        for path in _walk(root, ""):
            match = match_path(CgroupPath(path))
            if match is not None and match.path == path:
                found.setdefault(_place(match), {})[controller] = match.path
    for ((runtime, id_), *_), cgroups in found.items():
        container = container_of_paths(cgroups, runtime=runtime, id_=id_)
        if container is not None:
            yield container


def find_container(hierarchies: Hierarchies, wanted: str, root: str = "/") -> Container:
    """Return the container with the id, the beginning of an id, or the name `wanted`.

    A container may make cgroups inside itself and call them what it likes: one that is inside
    another container is meant only where no other answers. Raises ProcscopeError where there is
    none, or more than one.
    """
    containers = list(list_containers(hierarchies))
    exact = [one for one in containers if one.id == wanted]
    by_prefix = [
        one for one in containers if len(wanted) >= _MIN_ID_PREFIX and one.id.startswith(wanted)
    ]
    by_name = [one for one in containers if wanted in names_of(one, root)]
    for answering in (exact, by_prefix, by_name):
        found = [one for one in answering if not _is_nested(one)] or answering
        if len(found) == 1:
            return found[0]
        if found:
            raise ProcscopeError(
                f"{len(found)} containers answer to {wanted!r}",
                hint="give a full id: " + ", ".join(one.id for one in found[:_MAX_SHOWN]),
            )
    raise ProcscopeError(
        f"no container with the id or name {wanted!r}",
        hint=_what_there_is(containers, root),
    )


def _is_nested(container: Container) -> bool:
    """Tell whether the container is inside another one."""
    above = (CgroupPath(path.rpartition("/")[0]) for path in container.cgroups.values())
    return any(match_path(path) is not None for path in above)


def container_at(hierarchies: Hierarchies, path: str) -> Container | None:
    """Return the container whose cgroup is `path`: below a hierarchy's root, or a directory.

    None for the root, which is the host. Raises ProcscopeError where no hierarchy has it.
    """
    controllers = (*sorted(hierarchies.v1), UNIFIED)
    cgroups: dict[str, CgroupPath] = {}
    for controller in controllers:
        root = hierarchies.directory(controller, CgroupPath("/"))
        if root is not None and (path == root or path.startswith(f"{root}/")):
            path = path[len(root) :] or "/"
            break
    path = "/" + path.strip("/")
    if path == "/":
        return None
    for controller in controllers:
        directory = hierarchies.directory(controller, CgroupPath(path))
        if directory is not None and os.path.isdir(directory):
            cgroups[controller] = CgroupPath(path)
    container = container_of_paths(cgroups)
    if container is None:
        raise ProcscopeError(
            f"there is no cgroup {path}",
            hint="give a path as in /proc/PID/cgroup, or a directory of the cgroup filesystem",
        )
    return container


def _place(match: Match) -> tuple[tuple[str, str], ...]:
    """Return runtime and id of a container and of those around it.

    The same in every v1 hierarchy. Two containers may each have one of the same name inside.
    """
    place = [(match.runtime, match.id)]
    outer: Match | None = match
    while outer is not None:
        outer = match_path(CgroupPath(outer.path.rpartition("/")[0]))
        if outer is not None:
            place.append((outer.runtime, outer.id))
    return tuple(place)


def _what_there_is(containers: list[Container], root: str) -> str:
    if not containers:
        return "this host runs no container of a runtime that is known here"
    shown = [(names_of(one, root) or (one.id[:12],))[0] for one in containers[:_MAX_SHOWN]]
    more = ", …" if len(containers) > _MAX_SHOWN else ""
    return "there are " + ", ".join(shown) + more


def _walk(directory: str, path: str) -> Iterator[str]:
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for name in sorted(names):
        child = f"{path}/{name}"
        yield child
        yield from _walk(f"{directory}/{name}", child)
