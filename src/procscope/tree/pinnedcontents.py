"""What the files of the pinned tree say.

It is the view of the container that is pinned or, once that has gone, of whoever reads.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple, cast

from procscope.containers.identity import WholeContainerFinder
from procscope.fuse.filesystem import Caller
from procscope.ids import CpuId, NodeId
from procscope.observe.container import Limits
from procscope.observe.observatory import Observatory, OfLifetime
from procscope.observe.registry import View
from procscope.tree.cpufolder import CpuFolder
from procscope.tree.pins import Pins

STARTING_NS: Final = 5_000_000_000
"""A runtime makes the mounts first and sets the limits then (runc on cgroup v1): of a container
that is this young the kernel keeps nothing."""
_EVERY_CPU: Final = cast("Collection[CpuId]", range(1 << 16))


class Made(NamedTuple):
    """A content, and whether the kernel may keep it for others."""

    content: bytes
    may_be_kept: bool
    limits: Limits | None = None
    """What it was made with, where it is made of nothing else and may be kept."""
    is_of_pin: bool = True
    """Whether it is the pinned container's, the same one's whoever reads."""


class PinnedContents:
    """Renders files by the number of a pin."""

    def __init__(
        self,
        observatory: Observatory,
        identifier: WholeContainerFinder,
        pins: Pins,
        cpu_folder: CpuFolder,
    ) -> None:
        self._observatory = observatory
        self._identifier = identifier
        self._pins = pins
        self._cpu_folder = cpu_folder

    def of_view(self, caller: Caller, number: int, view: View) -> Made:
        """Render for the container that is pinned, or once it has gone for the caller's.

        Raises OSError. Who still has its mounts then has moved to another cgroup.
        """
        pin = self._pins.of_number(number)
        if pin is not None:
            found = self._observatory.render_lifetime(view, pin.container, pin.lifetime)
            if found is not None:
                return _made(found.content, found)
        container = self._identifier.container_of(caller.pid)
        return Made(self._observatory.render(view, container), may_be_kept=False, is_of_pin=False)

    def of_cpu_file(self, caller: Caller, number: int, part: NodeId) -> Made:
        """Return what a file of the CPU folder says. Raises OSError."""
        visible, found = self._visible_to(caller, number)
        content = self._cpu_folder.read(part, visible, whole=visible is _EVERY_CPU)
        if found is None or not self._cpu_folder.is_visible_list(part):
            may_be_kept = found is not None and _has_started(found)
            return Made(content, may_be_kept, is_of_pin=found is not None)
        return _made(content, found)

    def visible(self, caller: Caller, number: int) -> Collection[CpuId]:
        """The CPUs that are seen in the folder of container `number`."""
        return self._visible_to(caller, number)[0]

    def _visible_to(
        self, caller: Caller, number: int
    ) -> tuple[Collection[CpuId], OfLifetime | None]:
        """The same, and what else is known of the container that is pinned, if it is that one's."""
        pin = self._pins.of_number(number)
        if pin is not None:
            found = self._observatory.visible_cpus_of_lifetime(pin.container, pin.lifetime)
            if found is not None:
                return found.visible, found
        container = self._identifier.container_of(caller.pid)
        if container is None:
            return _EVERY_CPU, None
        return self._observatory.visible_cpus(container), None

    def has_started(self, number: int) -> bool:
        """Tell whether the container that is pinned has: then the kernel may keep its CPUs."""
        pin = self._pins.of_number(number)
        if pin is None:
            return False
        return self._observatory.age_of_lifetime_ns(pin.container, pin.lifetime) > STARTING_NS


def _has_started(found: OfLifetime) -> bool:
    """Tell whether a container's limits change by an administrator's hand from now on."""
    return found.age_ns > STARTING_NS


def _made(content: bytes, found: OfLifetime) -> Made:
    """Of a container that is being started nothing is kept, here or by the kernel."""
    if not _has_started(found):
        return Made(content, may_be_kept=False)
    return Made(content, may_be_kept=True, limits=found.limits)
