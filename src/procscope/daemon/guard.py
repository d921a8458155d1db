"""A worker that follows a reader makes way for everybody: the supervisor sees that it is let run.

Behind all other tasks of its CPU it runs only when these sleep. As long as nothing else runs that
is all the time; but where somebody begins to compute there, and counts as one group with it for the
scheduler, it would wait for a third of a second, and its reader with it. So it tells the supervisor
when it begins to follow. That looks twenty times a second whether it has begun a request since,
and puts it beside the others again where it has not.

The supervisor keeps off that CPU meanwhile: what wakes up there has the scheduler put the reader on
another one.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
from collections.abc import Iterable
from typing import Final

from procscope.daemon.slots import WorkerSlots
from procscope.ids import CpuId, Pid
from procscope.linux import scheduling

SIGNAL: Final = signal.SIGURG
"""Tells the supervisor that a worker begins to follow; without a handler it does nothing."""
LOOK_EVERY_S: Final = 0.05


class GuardedPlacement:
    """Where a worker runs; implements `procscope.fuse.following.Placing`.

    Without its supervisor it follows nobody.
    """

    def __init__(self, slots: WorkerSlots, supervisor: int) -> None:
        self._placement = scheduling.Placement()
        self._slots = slots
        self._supervisor = supervisor

    def make_way_on(self, cpu: CpuId, /) -> bool:
        """Stay on that CPU, behind all others; tell whether that could be done."""
        if os.getppid() != self._supervisor or not self._placement.make_way_on(cpu):
            return False
        is_guarded = self._slots.following() is not None
        self._slots.set_following(cpu)
        if not is_guarded:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._supervisor, SIGNAL)
        return True

    def restore(self) -> None:
        """Run as before."""
        self._placement.restore()
        self._slots.set_following(None)


class Guard:
    """The supervisor's side."""

    def __init__(self) -> None:
        self._placement = scheduling.Placement()
        self._begun_ns: dict[Pid, int] = {}

    def look(self, workers: Iterable[tuple[Pid, WorkerSlots]]) -> None:
        """Let each of them run that follows a reader and has begun nothing since the last look."""
        begun_ns: dict[Pid, int] = {}
        for pid, slots in workers:
            cpu = slots.following()
            if cpu is None:
                continue
            self._placement.keep_off(cpu)
            begun_ns[pid] = slots.begun_ns()
            if self._begun_ns.get(pid) == begun_ns[pid]:
                with contextlib.suppress(OSError):
                    scheduling.let_run(pid)
        self._begun_ns = begun_ns
        if not begun_ns:
            self._placement.restore()

    def next_look_s(self, workers: Iterable[tuple[Pid, WorkerSlots]]) -> float:
        """Return how soon to look again; infinity while none of them follows a reader."""
        follows = any(slots.following() is not None for _, slots in workers)
        return LOOK_EVERY_S if follows else math.inf

    def stand_down(self) -> None:
        """Look no more for now, and run where this process could run before."""
        self._begun_ns = {}
        self._placement.restore()
