"""What to do next at one place of a container: a pure decision about what is mounted there."""

from __future__ import annotations

import os.path
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from enum import Enum

from procscope.inject.model import Outcome, Over, Source, Wanted
from procscope.linux.mountinfo import Mount
from procscope.values import frozen

_DELETED = "//deleted"
"""What follows a path that the dentry cache no longer has (`d_path()` in the kernel's
fs/d_path.c)."""
_PINNED = re.compile(r"\A/[0-9a-f]{5}-[0-9a-f]{32}(?:/|\Z)", re.ASCII)
"""The folder of one container in the pinned tree."""


class Step(Enum):
    """What to do with the mount table."""

    ATTACH = "attach"
    TAKE_AWAY = "take away"
    """Take the mount away that was looked at, then look again."""
    STOP = "stop"


@frozen
class Decision:
    """The next step; with STOP, what became of the place."""

    step: Step
    outcome: Outcome = Outcome.LEFT_ALONE
    detail: str = ""


@frozen
class Place:
    """One place of a container, and what was done there so far."""

    at: Mount
    """The mount in which a walk to the place ends."""
    parent: Mount | None
    """What `at` is mounted on, as far as it can be seen."""
    taken_away: int = 0
    """How many dead views have been taken away here."""
    stuck: bool = False
    """Whether the kernel refused to take `at` away: it is locked to what lies below it."""


IsDead = Callable[[Mount], bool]


def attach_step(
    place: Place, wanted: Wanted, source: Source, host_peers: Collection[str], is_dead: IsDead
) -> Decision:
    """Return the next step towards exactly one view at the place.

    `host_peers` are the peer groups (`shared:N`) of the host's mounts. `is_dead` tells whether a
    view's daemon is gone; it may take long, and is only asked where the answer matters.
    """
    at = place.at
    if at.mount_point != wanted.mount_point:
        return _attach_to_nothing(place, wanted, host_peers)
    if not source.owns(at):
        detail = f"the container has a mount of its own there ({at.fstype})"
        return Decision(Step.STOP, Outcome.LEFT_ALONE, detail)
    if source.is_live(at):
        if view_root(at) == wanted.root:
            return Decision(Step.STOP, Outcome.ALREADY)
        return Decision(Step.STOP, Outcome.LEFT_ALONE, f"another view is there: {view_root(at)}")
    if not is_dead(at):
        return Decision(Step.STOP, Outcome.LEFT_ALONE, "another daemon serves it")
    if place.stuck:
        return _unless_shared(at, host_peers, Step.ATTACH)
    return _unless_shared(place.parent, host_peers, Step.TAKE_AWAY)


def _attach_to_nothing(place: Place, wanted: Wanted, host_peers: Collection[str]) -> Decision:
    """The next step where nothing is mounted at exactly the place."""
    if wanted.over is Over.DEAD_VIEW and not place.taken_away:
        return Decision(Step.STOP, Outcome.NOT_THERE, "the dead view is gone")
    if wanted.over is Over.KERNEL_FILE and not is_kernel_file(place.at, wanted):
        detail = f"what lies there is not the kernel's own file ({place.at.fstype})"
        return Decision(Step.STOP, Outcome.LEFT_ALONE, detail)
    return _unless_shared(place.at, host_peers, Step.ATTACH)


def view_root(mount: Mount) -> str:
    """Return which file or folder of its daemon a view is.

    Once a lookup of it fails, as by the death of the daemon, the kernel calls it deleted. In the
    pinned tree it is below a container's own folder; the same is in the live tree.
    """
    return _PINNED.sub("/", mount.root.removesuffix(_DELETED), count=1)


def is_kernel_file(at: Mount, wanted: Wanted) -> bool:
    """Tell whether a place in the mount `at` is the file of its name in procfs or sysfs."""
    inside = os.path.relpath(wanted.mount_point, at.mount_point)
    path = os.path.normpath(os.path.join(at.root, inside))
    return at.fstype == wanted.kernel_type and path == wanted.kernel_path


def detach_step(
    place: Place,
    mount_point: str,
    source: Source,
    host_peers: Collection[str],
    is_dead: IsDead,
) -> Decision:
    """Return the next step towards no view of this daemon, and no dead one, at the place."""
    at = place.at
    done = Outcome.TAKEN_AWAY if place.taken_away else Outcome.NOT_THERE
    if at.mount_point != mount_point or not source.owns(at):
        return Decision(Step.STOP, done)
    if not source.is_live(at) and not is_dead(at):
        return Decision(Step.STOP, Outcome.LEFT_ALONE, "another daemon serves it")
    if place.stuck:
        detail = "it is locked: the namespace has it from one of more privilege"
        return Decision(Step.STOP, Outcome.LEFT_ALONE, detail)
    return _unless_shared(place.parent, host_peers, Step.TAKE_AWAY)


def _unless_shared(mount: Mount | None, host_peers: Collection[str], step: Step) -> Decision:
    """What is mounted on, or taken off, a peer of a host's mount happens on the host as well."""
    if mount is not None and any(group in host_peers for group in mount.optional):
        detail = f"the host shares its mount at {mount.mount_point}"
        return Decision(Step.STOP, Outcome.LEFT_ALONE, detail)
    return Decision(step)


def peer_groups(mounts: Iterable[Mount]) -> frozenset[str]:
    """Return the peer groups that events on these mounts propagate to, as `shared:N`."""
    return frozenset(
        group for mount in mounts for group in mount.optional if group.startswith("shared:")
    )


def topmost(mounts: Iterable[Mount]) -> Iterator[Mount]:
    """Yield the mounts that no other mount covers at the same mount point, parents first."""
    by_id: Mapping[int, Mount] = {mount.mount_id: mount for mount in mounts}
    covered = {
        mount.parent_id
        for mount in by_id.values()
        if mount.parent_id in by_id and by_id[mount.parent_id].mount_point == mount.mount_point
    }
    for mount in sorted(by_id.values(), key=lambda mount: mount.mount_point):
        if mount.mount_id not in covered:
            yield mount


def suspects(mounts: Iterable[Mount], source: Source) -> tuple[Wanted, ...]:
    """Return the views that may be dead: those of another connection than the live one.

    What is mounted in one of them goes with it, as the pinned tree in a mount of the whole.
    """
    by_id = {mount.mount_id: mount for mount in mounts}
    suspected = {
        mount.mount_id: mount.mount_point
        for mount in by_id.values()
        if source.owns(mount) and not source.is_live(mount)
    }
    return tuple(
        Wanted(view_root(mount), mount.mount_point, Over.DEAD_VIEW)
        for mount in topmost(by_id.values())
        if mount.mount_id in suspected
        and suspected.get(mount.parent_id, mount.mount_point) == mount.mount_point
    )


def removable(
    mounts: Iterable[Mount], source: Source, roots: Collection[str] | None, *, whole: bool
) -> tuple[Wanted, ...]:
    """Return the views that may be this daemon's or dead, innermost first.

    `roots`: only of these files (`/proc/meminfo`); None for all. `whole`: mounts of all that the
    daemon serves as well.
    """
    found = [
        Wanted(view_root(mount), mount.mount_point, Over.ANYTHING)
        for mount in topmost(mounts)
        if source.owns(mount)
        and (roots is None or view_root(mount) in roots)
        and (whole or mount.root != "/")
    ]
    return tuple(reversed(found))
