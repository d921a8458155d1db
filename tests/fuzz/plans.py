"""Targets: what is decided about a container's mounts, and what a supervisor leaves to the next."""

from __future__ import annotations

from procscope.daemon.estate import EstateState
from procscope.errors import ProcscopeError
from procscope.inject.model import Over, Source, Wanted, wanted_files
from procscope.inject.plan import (
    Place,
    Step,
    attach_step,
    detach_step,
    peer_groups,
    removable,
    suspects,
    topmost,
)
from procscope.linux.mountinfo import Mount, parse_mountinfo
from tests.fuzz.checks import attempt, require
from tests.fuzz.parsers import text_of

_SOURCE = Source("/var/lib/procscope", "0:99")
_WANTED = wanted_files(["proc/meminfo", "sys/devices/system/cpu"])


def attach_plan(data: bytes) -> None:
    """A container's mount table of any content: only its views are taken away or covered."""
    mounts = tuple(parse_mountinfo(text_of(data)))
    by_id = {mount.mount_id: mount for mount in mounts}
    shown = list(topmost(mounts))
    require(len(shown) == len({mount.mount_id for mount in shown}), "a mount comes twice")
    peers = peer_groups(mounts)
    for dead in (True, False):
        for mount in mounts:
            for stuck in (True, False):
                place = Place(mount, by_id.get(mount.parent_id), 0, stuck)
                _check_place(place, dead, peers)
                _check_place(place, dead, frozenset())
    places = {(mount.root, mount.mount_point) for mount in mounts if _SOURCE.owns(mount)}
    for found in (
        suspects(mounts, _SOURCE),
        removable(mounts, _SOURCE, None, whole=True),
        removable(mounts, _SOURCE, ["/proc/meminfo"], whole=False),
    ):
        require({(one.root, one.mount_point) for one in found} <= places, "another's mount")


def _check_place(place: Place, dead: bool, peers: frozenset[str]) -> None:
    at = place.at

    def is_dead(mount: Mount) -> bool:
        require(_SOURCE.owns(mount), "asked a filesystem that is not ours")
        return dead

    for wanted in (*_WANTED, Wanted("/proc/stat", at.mount_point, Over.DEAD_VIEW)):
        step = attach_step(place, wanted, _SOURCE, peers, is_dead).step
        ours = at.mount_point == wanted.mount_point and _SOURCE.owns(at)
        if step is Step.TAKE_AWAY:
            require(ours and dead and not _SOURCE.is_live(at), f"takes away {at}")
        if step is Step.ATTACH and at.mount_point == wanted.mount_point:
            require(ours and dead, f"covers {at}")
        if step is Step.ATTACH and wanted.over is Over.KERNEL_FILE and not ours:
            require(at.fstype in ("proc", "sysfs"), f"covers a file of {at.fstype}")
        if step is not Step.STOP and peers:
            require(not peers.intersection(at.optional) or ours, "changes the host's own mount")
    if detach_step(place, at.mount_point, _SOURCE, peers, is_dead).step is Step.TAKE_AWAY:
        require(_SOURCE.owns(at), f"detaches {at}")


def estate_state(data: bytes) -> None:
    """What is said of a connection in a predecessor's memory: taken whole, or the one error."""
    known = attempt(EstateState.from_json, text_of(data), allowed=ProcscopeError)
    if known is not None:
        require(EstateState.from_json(known.to_json()) == known, "not the same again")
