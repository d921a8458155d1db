"""Which component of a cgroup path is a container: one table, one line for each runtime.

Docker and CRI runtimes with the `cgroupfs` driver name a cgroup by the container's 64 hex digits;
with the `systemd` driver it is a scope unit with a prefix. Monitors (`conmon`) live in cgroups of
their own, which are no containers.
"""

from __future__ import annotations

import re

from procscope.ids import CgroupPath
from procscope.values import frozen

_ID = r"(?P<id>[0-9a-f]{64})"


@frozen
class Runtime:
    """How one runtime names the cgroup of a container."""

    name: str
    component: re.Pattern[str]
    """Matches one whole path component; the group `id` is the runtime's id of the container."""
    parent: re.Pattern[str] | None = None
    """Matches the whole component above; None where any will do."""


def _row(name: str, component: str, parent: str | None = None) -> Runtime:
    return Runtime(name, re.compile(component), re.compile(parent) if parent else None)


RUNTIMES: tuple[Runtime, ...] = (
    _row("docker", rf"docker-{_ID}\.scope"),
    _row("docker", _ID, parent="docker"),
    _row("containerd", rf"cri-containerd-{_ID}\.scope"),
    # The kubelet with the systemd driver, containerd with cgroupfs: a slice's name is taken as is.
    _row("containerd", rf".+\.slice:cri-containerd:{_ID}"),
    _row("crio", rf"crio-{_ID}(?:\.scope)?"),
    # `payload` is that of `--cgroups=split`, which a Quadlet unit uses.
    _row("podman", rf"libpod-(?:payload-)?{_ID}(?:\.scope)?"),
    _row("nerdctl", rf"nerdctl-{_ID}\.scope"),
    _row("oci", _ID),
    _row("lxc", r"lxc\.payload\.(?P<id>.+)"),
    _row("lxc", r"(?P<id>.+)", parent=r"lxc\.payload"),
    _row("procscope", r"(?P<id>.+)", parent="procscope"),
    _row(
        "machine",
        r"(?!(?:libpod|crio)-conmon-)(?:systemd-nspawn@|machine-)?(?P<id>.+)\.(?:scope|service)",
        parent=r"machine\.slice",
    ),
)


@frozen
class Match:
    """A container that a cgroup path names."""

    runtime: str
    id: str
    path: CgroupPath
    """The path up to and including the container's component."""


def match_path(path: CgroupPath) -> Match | None:
    """Return the innermost container that `path` names, or None."""
    components = path.split("/")
    for index in range(len(components) - 1, 0, -1):
        for runtime in RUNTIMES:
            found = runtime.component.fullmatch(components[index])
            if not found:
                continue
            if runtime.parent and not runtime.parent.fullmatch(components[index - 1]):
                continue
            return Match(runtime.name, found["id"], CgroupPath("/".join(components[: index + 1])))
    return None
