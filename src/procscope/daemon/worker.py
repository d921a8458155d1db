"""A worker: answers requests until the mount is gone."""

from __future__ import annotations

import logging
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial

from procscope.cgroup.files import FileBudget
from procscope.cgroup.hierarchy import Hierarchies
from procscope.containers.identity import (
    ContainerFinder,
    Identifier,
    Nobody,
    WholeContainerFinder,
)
from procscope.daemon.board import Board
from procscope.daemon.config import ServeConfig
from procscope.daemon.groups import Groups
from procscope.daemon.guard import GuardedPlacement
from procscope.daemon.handles import HandleStore
from procscope.daemon.outsiders import Outsiders
from procscope.daemon.pins import PinStore
from procscope.daemon.relief import Relief
from procscope.daemon.slots import WorkerSlots
from procscope.fuse.following import Follower
from procscope.fuse.loop import RequestLoop
from procscope.fuse.negotiation import ConnectionState
from procscope.fuse.protocol import Refuser, Session
from procscope.fuse.responder import RequestHandler, Responder
from procscope.fuse.shortway import ShortWay
from procscope.fuse.standin import wait_until_needed
from procscope.fuse.trace import Tracer
from procscope.ids import Pid
from procscope.linux import scheduling, syscalls
from procscope.observe.host import HostFiles
from procscope.observe.observatory import Fallback, Observatory
from procscope.observe.records import RecordStore
from procscope.tree.live import LiveTree
from procscope.tree.pinned import PinnedTree
from procscope.tree.pins import NoPins, Pins

_log = logging.getLogger(__name__)
_POISONOUS_DEATHS = 2
_POISONOUS = "a request has killed %d workers, and gets %s: %s"
_MOST_READERS = 1700
"""Descriptors by which it is remembered whose readers are, one or two for each."""
_MOST_FILES = 17 * 1024
"""Those of a thousand containers on v1. The kernel keeps a page for each that was read."""
_FILES_KEPT_FREE = 40
"""Descriptors for what is always open, the host's files, and what a request opens for a moment."""


def run_worker(
    config: ServeConfig,
    hierarchies: Hierarchies,
    fd: int,
    state: ConnectionState,
    handles: HandleStore,
    index: int,
    slots: WorkerSlots,
    *,
    only_left_over: bool = False,
    as_host: bool = False,
    board: Board | None = None,
    pinned: bool = False,
    relief: Relief | None = None,
    supervisor: int = 0,
) -> None:
    """Serve `fd` as worker number `index`. Returns when the mount is gone, or on SIGTERM.

    `fd` is the live tree's connection or, with `pinned`, that of the pinned tree, where `handles`
    are of the only worker.

    `slots` are shared with the worker's predecessors and successors: what one of them has left
    unanswered is answered first; with `only_left_over` that is all. With `as_host` every reader
    gets the host's bytes. Fallbacks are counted on `board`. `supervisor` is the process that sees
    that this one runs where it follows a reader. `relief` tells when the workers before
    this one need it; without it, it always serves. What it answers with is made for the first
    request, but by the live tree's first worker, which is certain to get one.
    """
    syscalls.set_name(f"procscope-{'s' if pinned else 'w'}{index}")
    _wait_for_work(fd, slots, relief, comes=only_left_over or not (pinned or relief))
    handles.adopt_part(index)
    readers, files = share_out(_raise_file_limit())
    budget = FileBudget(files)
    identifier: WholeContainerFinder = Nobody()
    if not as_host:
        identifier = Identifier(config.proc, capacity=readers, budget=budget)

    def on_fallback(fallback: Fallback) -> None:
        _log_fallback(fallback)
        if board is not None:
            board.count_fallback(index)

    tree: LiveTree | PinnedTree
    if pinned:
        tree = make_pinned_tree(
            config,
            hierarchies,
            handles,
            identifier,
            NoPins() if as_host else PinStore(config.pins_directory, config.records_directory),
            budget,
            on_fallback,
            None if board is None else Outsiders(config.proc, board.count_outsider).note,
        )
    else:
        tree = make_tree(config, hierarchies, handles, identifier, budget, on_fallback)
    with closing(tree):
        handler: RequestHandler = Session(tree, state)
        if isinstance(tree, PinnedTree):
            handler = ShortWay(handler, tree.known)
        if config.debug:
            handler = Tracer(handler, _log)
        if pinned:
            responder = Responder(fd, handler, slots)
        else:
            responder = Responder(fd, handler, slots, on_unwanted=handles.take_back)

        def host_handler() -> AbstractContextManager[RequestHandler]:
            return for_host(config, hierarchies, state, handles, pinned=pinned)

        answer_left_over(slots, responder, host_handler)
        handles.settle()
        if only_left_over:
            return
        group_of = Groups(identifier).group_of
        loop = RequestLoop(
            responder,
            group_of=group_of,
            sweep=tree.sweep,
            relief=relief,
            follower=None if pinned or relief else _follower(config, slots, supervisor),
            one_by_one=pinned,
        )
        signal.signal(signal.SIGTERM, lambda *_: loop.stop())
        signal.set_wakeup_fd(loop.wakeup_fd, warn_on_full_buffer=False)
        loop.run()


def _follower(config: ServeConfig, slots: WorkerSlots, supervisor: int) -> Follower | None:
    """Return what lets the live tree's first worker follow readers, where the kernel lets it."""
    slots.set_following(None)
    if not scheduling.may_leave_idle_class(config.proc):
        return None
    return Follower(
        GuardedPlacement(slots, supervisor), partial(scheduling.cpu_of, proc=config.proc)
    )


def _wait_for_work(fd: int, slots: WorkerSlots, relief: Relief | None, *, comes: bool) -> None:
    """Wait until there is a request to answer, unless it is certain that one `comes`.

    Whatever is made before is memory of this process's own, and what it is made from a copy of what
    all of them share.
    """
    if not comes and not slots.pending():
        wait_until_needed(fd, relief)


def answer_left_over(
    slots: WorkerSlots,
    responder: Responder,
    host_handler: Callable[[], AbstractContextManager[RequestHandler]],
) -> None:
    """Answer the requests that a predecessor has read and not answered, if there are any.

    Each as any other, those that have killed no worker first. One that has killed two workers
    gets the host's bytes, for which nothing of its container is looked at; and one that has
    killed a third, EIO.
    """
    slots.count_death()
    for index in sorted(slots.pending(), key=slots.deaths):
        deaths = slots.deaths(index)
        if deaths < _POISONOUS_DEATHS:
            responder.answer(index)
        elif deaths == _POISONOUS_DEATHS:
            _log.error(_POISONOUS, deaths, "the host's bytes", slots.header(index))
            with host_handler() as handler:
                responder.answer(index, handler)
        else:
            _log.error(_POISONOUS, deaths, "EIO", slots.header(index))
            responder.answer(index, Refuser())


@contextmanager
def for_host(
    config: ServeConfig,
    hierarchies: Hierarchies,
    state: ConnectionState,
    handles: HandleStore,
    *,
    pinned: bool = False,
) -> Iterator[RequestHandler]:
    """Give what answers every reader as if it were on the host."""
    tree: LiveTree | PinnedTree
    if pinned:
        tree = make_pinned_tree(config, hierarchies, handles, Nobody(), NoPins())
    else:
        tree = make_tree(config, hierarchies, handles, Nobody())
    with closing(tree):
        yield Session(tree, state)


def make_tree(
    config: ServeConfig,
    hierarchies: Hierarchies,
    handles: HandleStore,
    finder: ContainerFinder | None = None,
    budget: FileBudget | None = None,
    on_fallback: Callable[[Fallback], None] | None = None,
) -> LiveTree:
    """Return the filesystem that one worker serves; `finder` finds its readers' containers."""
    budget = FileBudget() if budget is None else budget
    observatory = _make_observatory(config, hierarchies, handles, budget, on_fallback)
    return LiveTree(
        observatory,
        finder or Identifier(config.proc, budget=budget),
        handles,
        config.views,
        with_cpu_folder=config.with_cpu_folder,
        with_self=config.pinned,
    )


def make_pinned_tree(
    config: ServeConfig,
    hierarchies: Hierarchies,
    handles: HandleStore,
    finder: WholeContainerFinder,
    pins: Pins,
    budget: FileBudget | None = None,
    on_fallback: Callable[[Fallback], None] | None = None,
    on_outsider: Callable[[Pid], None] | None = None,
) -> PinnedTree:
    """Return the pinned tree, with the contents of `handles`, whose part must be adopted."""
    budget = FileBudget() if budget is None else budget
    return PinnedTree(
        _make_observatory(config, hierarchies, handles, budget, on_fallback),
        finder,
        pins,
        handles,
        config.views,
        with_cpu_folder=config.with_cpu_folder,
        on_outsider=on_outsider or (lambda pid: None),
    )


def _make_observatory(
    config: ServeConfig,
    hierarchies: Hierarchies,
    handles: HandleStore,
    budget: FileBudget,
    on_fallback: Callable[[Fallback], None] | None,
) -> Observatory:
    host = HostFiles(config.proc, config.sys, shared=handles, budget=budget)
    host.keep_open(config.views)
    return Observatory(
        hierarchies,
        host,
        RecordStore(config.records_directory),
        cpu_count=config.cpu_count,
        on_fallback=on_fallback or _log_fallback,
        budget=budget,
    )


def share_out(limit: int) -> tuple[int, int]:
    """Return how many descriptors readers are remembered by, and how many files are kept open.

    The files are those of cgroups, and records. A process that may open `limit` files has
    descriptors left for all else, unless that is very few.
    """
    readers = max(8, min(_MOST_READERS, limit // 8))
    files = limit - readers - max(_FILES_KEPT_FREE, limit // 16)
    return readers, max(8, min(_MOST_FILES, files))


def _raise_file_limit() -> int:
    """Raise the soft limit of open files to the hard one, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1 << 16 if hard == resource.RLIM_INFINITY else min(hard, 1 << 16)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)


def _log_fallback(fallback: Fallback) -> None:
    _log.warning(
        "%s of container %s is the host's: %s",
        fallback.view,
        fallback.container.id,
        str(fallback.error) or type(fallback.error).__name__,
    )
