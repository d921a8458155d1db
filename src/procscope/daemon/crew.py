"""The workers of one mount, each started in the place of a predecessor's, on the same slots."""

from __future__ import annotations

import os

from procscope.cgroup.hierarchy import Hierarchies
from procscope.daemon.board import Board
from procscope.daemon.children import Child, Children
from procscope.daemon.config import ServeConfig
from procscope.daemon.estate import Estate
from procscope.daemon.relief import Relief
from procscope.daemon.takeover import stop_worker
from procscope.daemon.watch import DeadlineWatch
from procscope.daemon.worker import run_worker
from procscope.fuse import device
from procscope.linux.processes import identity_of
from procscope.values import frozen

WORKER, PINNED_WORKER = "worker", "pinned worker"
"""How the children of either tree are called."""


@frozen
class Crew:
    """What the workers need to be started."""

    config: ServeConfig
    estate: Estate
    hierarchies: Hierarchies
    board: Board | None = None
    as_host: bool = False
    """Whether they give every reader the host's bytes."""
    pinned: bool = False
    """Whether `estate` is the pinned tree's, which has one worker."""

    @property
    def workers(self) -> int:
        """How many there are."""
        return 1 if self.pinned else self.config.workers

    def start(self, children: Children, *, dies_with_supervisor: bool) -> None:
        """Replace what a predecessor has left, one after the other. Raises ProcscopeError."""
        self.start_first(children, dies_with_supervisor=dies_with_supervisor)
        self.start_others(children, dies_with_supervisor=dies_with_supervisor)

    def start_first(self, children: Children, *, dies_with_supervisor: bool) -> None:
        """Begin with the one that serves while it keeps up. Raises ProcscopeError."""
        self._start_worker(children, 0, dies_with_supervisor)

    def start_others(self, children: Children, *, dies_with_supervisor: bool) -> None:
        """Go on with those that relieve it. Raises ProcscopeError."""
        for index in range(1, self.estate.slots.workers):
            self._start_worker(children, index, dies_with_supervisor)
        if self.estate.needs_resend:
            device.ask_for_resend(self.estate.fuse_fd)

    def _start_worker(self, children: Children, index: int, dies_with_supervisor: bool) -> None:
        """Start a worker in the place of the predecessor's.

        A place that is not needed any more gets one for as long as it takes to answer what was
        left there.
        """
        config, estate = self.config, self.estate
        stop_worker(estate, config, index)
        slots = estate.slots.worker(index)
        needed = index < self.workers
        if not needed and not slots.pending():
            return

        before = [estate.slots.worker(earlier) for earlier in range(index)]
        supervisor = os.getpid()

        def run() -> None:
            me = identity_of(os.getpid(), config.proc)
            if me is not None:
                slots.set_owner(me.pid, me.start_ticks)
            run_worker(
                config,
                self.hierarchies,
                estate.fuse_fd,
                estate.state.connection,
                estate.handles,
                index,
                slots,
                only_left_over=not needed,
                as_host=self.as_host,
                board=self.board,
                pinned=self.pinned,
                relief=Relief(before) if before else None,
                supervisor=supervisor,
            )

        watch = DeadlineWatch(slots, config.deadline_s)
        name = f"{PINNED_WORKER if self.pinned else WORKER} {index}"
        children.start(
            Child(name, run, watch, dies_with_supervisor=dies_with_supervisor, once=not needed)
        )
