"""The container: one cgroup that is somebody's whole machine."""

from __future__ import annotations

from collections.abc import Mapping

from procscope.digest import blake2b
from procscope.ids import CgroupPath, ContainerKey
from procscope.values import frozen


@frozen
class Container:
    """A container by its cgroup path in every hierarchy; None stands for the host elsewhere."""

    key: ContainerKey
    """Made from the paths below a root; the same paths always have the same key."""
    cgroups: Mapping[str, CgroupPath]
    """Controller -> path; the v2 hierarchy's controller is the empty text."""
    runtime: str
    """The runtime's name, empty where no runtime is known to have made it."""
    id: str
    """The runtime's id of it, or the cgroup path."""


def container_of_paths(
    cgroups: Mapping[str, CgroupPath], *, runtime: str = "", id_: str = ""
) -> Container | None:
    """Return the container at `cgroups`, or None where every path is the root: the host."""
    below_root = {controller: path for controller, path in cgroups.items() if path != "/"}
    if not below_root:
        return None
    paths = below_root.values()
    text = "\n".join(f"{controller}:{path}" for controller, path in sorted(below_root.items()))
    key = blake2b(text.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()
    return Container(ContainerKey(key), cgroups, runtime, id_ or max(paths, key=len))
