"""What is done inside one container's mount namespace: places looked at and changed, one by one."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping

from procscope.inject.inside import Inside, OutsideRoot, Spot
from procscope.inject.model import FileResult, Outcome, Source, Wanted
from procscope.inject.plan import Decision, Step, attach_step, detach_step
from procscope.linux import syscalls
from procscope.linux.mountinfo import Mount
from procscope.values import frozen

_MAX_STEPS = 64
"""At one place. A container that mounts as fast as we take away must not keep us."""

Tell = Callable[[FileResult], None]
Decide = Callable[[Spot], Decision]


@frozen
class Worker:
    """Works on the places of one namespace."""

    inside: Inside
    source: Source
    host_peers: frozenset[str]
    trees: Mapping[Wanted, int]
    """A detached copy of the daemon's file for each view that it serves."""

    def attach_all(self, wanted: Iterable[Wanted], tell: Tell) -> None:
        """Bring each view to its place.

        Those where another daemon has to be asked whether it lives come last: it may not answer.
        """
        later: list[Wanted] = []
        for one in wanted:
            if one not in self.trees:
                tell(self._result(one, Outcome.NOT_THERE, "the daemon does not serve it"))
            elif self._must_ask(one):
                later.append(one)
            else:
                tell(self.attach(one))
        for one in later:
            tell(self.attach(one))

    def detach_all(self, wanted: Iterable[Wanted], tell: Tell) -> None:
        """Take each view away."""
        for one in wanted:
            tell(self.detach(one))

    def attach(self, wanted: Wanted) -> FileResult:
        """Bring one view to its place."""

        def decide(spot: Spot) -> Decision:
            return attach_step(spot.place, wanted, self.source, self.host_peers, self._asker(spot))

        return self._work(wanted, decide)

    def detach(self, wanted: Wanted) -> FileResult:
        """Take one view away, and the dead ones below it."""

        def decide(spot: Spot) -> Decision:
            path = wanted.mount_point
            return detach_step(spot.place, path, self.source, self.host_peers, self._asker(spot))

        return self._work(wanted, decide)

    def _work(self, wanted: Wanted, decide: Decide) -> FileResult:
        try:
            return self._steps(wanted, decide)
        except (FileNotFoundError, NotADirectoryError):
            return self._result(wanted, Outcome.NOT_THERE)
        except OutsideRoot as error:
            return self._result(wanted, Outcome.LEFT_ALONE, error.strerror or "")
        except OSError as error:
            if error.errno == errno.ELOOP:
                detail = "a symbolic link of the container is on the way"
                return self._result(wanted, Outcome.LEFT_ALONE, detail)
            return self._result(wanted, Outcome.FAILED, error.strerror or str(error))

    def _steps(self, wanted: Wanted, decide: Decide) -> FileResult:
        taken_away, stuck = 0, False
        inner: list[tuple[str, int]] = []
        lost: list[str] = []
        try:
            for _ in range(_MAX_STEPS):
                spot = self.inside.look(wanted.mount_point, taken_away, stuck)
                try:
                    decision = decide(spot)
                    if decision.step is Step.STOP:
                        self.inside.put_back(inner)
                        detail = decision.detail or _told(lost)
                        return self._result(wanted, decision.outcome, detail)
                    self._copy_inner(spot, inner, lost)
                    if decision.step is Step.ATTACH:
                        self._attach(wanted, spot, inner)
                        replaced = taken_away > 0 or stuck
                        outcome = Outcome.REPLACED if replaced else Outcome.ATTACHED
                        return self._result(wanted, outcome, _told(lost))
                    stuck = not self._taken_away(spot)
                    taken_away += not stuck
                finally:
                    os.close(spot.fd)
        finally:
            for _, tree in inner:
                os.close(tree)
        return self._result(wanted, Outcome.FAILED, "its mounts change faster than we can follow")

    def _copy_inner(self, spot: Spot, inner: list[tuple[str, int]], lost: list[str]) -> None:
        """Keep what the container has mounted on something below the place.

        A runtime hides files that way, and they must not show again.
        """
        theirs = [
            mount
            for mount in spot.inner
            if not self.source.owns(mount) and mount.mount_point not in dict(inner)
        ]
        copies = self.inside.copies_of(theirs)
        inner += copies
        lost += [one.mount_point for one in theirs if one.mount_point not in dict(copies)]

    def _attach(self, wanted: Wanted, spot: Spot, inner: list[tuple[str, int]]) -> None:
        syscalls.move_mount(self.trees[wanted], spot.fd)
        try:
            self.inside.put_back(inner)
        except OSError:
            self._take_ours_away(wanted)
            raise

    def _take_ours_away(self, wanted: Wanted) -> None:
        spot = self.inside.look(wanted.mount_point)
        try:
            if self.source.is_live(spot.place.at):
                self.inside.take_away(spot)
        finally:
            os.close(spot.fd)

    def _taken_away(self, spot: Spot) -> bool:
        """Take the mount away; False where it is locked to what lies below it."""
        try:
            self.inside.take_away(spot)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return False
        return True

    def _must_ask(self, wanted: Wanted) -> bool:
        """Tell whether the place has a view of another connection."""
        try:
            spot = self.inside.look(wanted.mount_point)
        except OSError:
            return False
        os.close(spot.fd)
        at = spot.place.at
        return self.source.owns(at) and not self.source.is_live(at)

    def _asker(self, spot: Spot) -> Callable[[Mount], bool]:
        return lambda _mount: self.inside.is_dead(spot)

    def _result(self, wanted: Wanted, outcome: Outcome, detail: str = "") -> FileResult:
        return FileResult(wanted.root, wanted.mount_point, outcome, detail)


def _told(lost: list[str]) -> str:
    """Say what could not be kept."""
    return f"what was mounted inside is gone: {', '.join(lost)}" if lost else ""
