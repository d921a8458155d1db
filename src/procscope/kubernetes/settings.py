"""What admission is told from outside: settings of the installation, facts of the namespace.

Everything that a person configures is a field of `Settings`, with its default; the server's options
and the chart's values are named after them. What admission reads besides the request is in
`NamespaceFacts`, or `UNKNOWN` where nobody could be asked.

Both modes of injection, webhook and policy, are made from the same `Settings`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from procscope.errors import ProcscopeError
from procscope.inject.docker import DEFAULT_FILES, MOUNTABLE
from procscope.tree.sources import Pinned

INJECT: Final = "procscope.io/inject"
"""Annotation of pods and workloads, label of namespaces: "true" or "false"."""
FILES: Final = "procscope.io/files"
"""Annotation of pods, workloads and namespaces: the files, separated by commas."""
PINNED: Final = "procscope.io/pinned"
"""Annotation of pods, workloads and namespaces: what comes from the pinned tree (`Pinned`)."""
STATUS: Final = "procscope.io/status"
"""Annotation that admission leaves on the pod: what became of it."""
CARRIED: Final = "procscope.io/carried"
"""Annotation of a pod template: which of its annotations came from the workload (JSON)."""

POD_SECURITY_LEVELS: Final = ("privileged", "baseline", "restricted")

# A name part of at most 63 characters, after a DNS subdomain and a slash if there is one.
_QUALIFIED_NAME: Final = re.compile(
    r"([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
    r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)


@dataclass(frozen=True, slots=True)
class Settings:
    """How pods are to be injected. Raises ProcscopeError for what could never work.

    `mountpoint`
        where the agent serves on each node; the hostPath volumes point below it.
    `files`
        what a pod gets that does not choose by itself (`procscope.inject.docker.MOUNTABLE` is all).
    `pinned`
        which of the files come from the pinned tree, for a pod that does not choose by itself.
    `annotations`
        more names for `procscope.io/inject`, the first one that is there decides;
        `procscope.io/inject` itself always comes before them.
    `require_annotation`
        False: all pods are injected that nobody has opted out.
    `excluded_namespaces`
        never injected, whatever anybody asks for. Should contain the agent's own.
    `sandboxed_runtime_classes`
        names of runtime classes whose containers have a kernel of their own, and cannot be given
        files of the node's; `*` stands for any characters.
    `default_pod_security_level`
        what a namespace without the label `pod-security.kubernetes.io/enforce` enforces; for API
        servers whose configuration of PodSecurity says another than "privileged".
    `pod_security_exempt`
        namespaces whose Pod Security labels do not count, since the API server exempts them or
        their pods; `*` stands for any characters, and alone for every namespace.
    `allow_user_namespaces`
        True: pods with `hostUsers: false` are injected too. All nodes need Linux 6.12, the first
        that can map the ids of a FUSE mount; on an older one such a pod would never start.
    """

    mountpoint: str = "/var/lib/procscope/mount"
    files: tuple[str, ...] = DEFAULT_FILES
    pinned: Pinned = Pinned.LIMITS
    annotations: tuple[str, ...] = ("initializer.kubernetes.io/lxcfs",)
    require_annotation: bool = True
    excluded_namespaces: frozenset[str] = frozenset({"kube-system"})
    sandboxed_runtime_classes: tuple[str, ...] = ("kata*", "gvisor*", "runsc*")
    default_pod_security_level: str = "privileged"
    pod_security_exempt: tuple[str, ...] = ()
    allow_user_namespaces: bool = False

    def __post_init__(self) -> None:
        _check_mountpoint(self.mountpoint)
        for file in self.files:
            if file not in MOUNTABLE:
                raise ProcscopeError(
                    f"pods cannot be given {file!r}", hint="choose from " + ", ".join(MOUNTABLE)
                )
        for name in self.annotations:
            if not _QUALIFIED_NAME.fullmatch(name):
                raise ProcscopeError(
                    f"{name!r} cannot be the name of an annotation",
                    hint="write it as example.com/name",
                )
        if self.default_pod_security_level not in POD_SECURITY_LEVELS:
            raise ProcscopeError(
                f"there is no Pod Security level {self.default_pod_security_level!r}",
                hint="choose from " + ", ".join(POD_SECURITY_LEVELS),
            )

    @property
    def inject_annotations(self) -> tuple[str, ...]:
        """The annotations that opt in and out, the first that is there decides."""
        return tuple(dict.fromkeys((INJECT, *self.annotations)))


def _check_mountpoint(mountpoint: str) -> None:
    parts = mountpoint.split("/")
    # The API server rejects a hostPath with "..", the runtime a mount that is not absolute.
    if parts[0] or len(parts) < 2 or not all(parts[1:]) or {".", ".."} & set(parts):
        raise ProcscopeError(
            f"pods cannot be given files of the mountpoint {mountpoint!r}",
            hint="name it as an absolute path without '.', '..' and needless slashes",
        )


@dataclass(frozen=True, slots=True)
class NamespaceFacts:
    """Labels and annotations of the namespace that a request is about.

    `known` is False where they could not be had: see `UNKNOWN`.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    known: bool = True


UNKNOWN: Final = NamespaceFacts(known=False)
"""No pod is injected on the strength of it: the namespace might reject hostPath volumes."""
