"""A worker: answers requests until the mount is gone."""

from __future__ import annotations

import logging
import resource
import signal
from contextlib import closing

from procscope.cgroup.hierarchy import Hierarchies
from procscope.containers.identity import Identifier, Nobody
from procscope.daemon.config import ServeConfig
from procscope.daemon.handles import HandleStore
from procscope.daemon.slots import RequestSlot
from procscope.fuse.loop import RequestHandler, RequestLoop
from procscope.fuse.negotiation import ConnectionState
from procscope.fuse.protocol import Refuser, Session
from procscope.fuse.trace import Tracer
from procscope.linux import syscalls
from procscope.observe.host import HostFiles
from procscope.observe.observatory import Fallback, Observatory
from procscope.observe.records import RecordStore
from procscope.tree.live import LiveTree

_log = logging.getLogger(__name__)
_POISONOUS_DEATHS = 2
_FILES_KEPT_FREE = 256
"""Descriptors that are not for cgroup files: identities, host files, one request's own."""


def run_worker(
    config: ServeConfig,
    hierarchies: Hierarchies,
    fd: int,
    state: ConnectionState,
    handles: HandleStore,
    index: int,
    slot: RequestSlot,
) -> None:
    """Serve `fd` as worker number `index`. Returns when the mount is gone, or on SIGTERM.

    `slot` is shared with the worker's predecessors and successors: what one of them has left
    unanswered is answered first.
    """
    syscalls.set_name(f"procscope-w{index}")
    handles.adopt(index)
    answer_left_over(config, hierarchies, fd, state, handles, slot)
    handler: RequestHandler = Session(make_tree(config, hierarchies, handles), state)
    if config.debug:
        handler = Tracer(handler, _log)
    loop = RequestLoop(fd, handler, buffer=slot.buffer)
    signal.signal(signal.SIGTERM, lambda *_: loop.stop())
    loop.run()


def answer_left_over(
    config: ServeConfig,
    hierarchies: Hierarchies,
    fd: int,
    state: ConnectionState,
    handles: HandleStore,
    slot: RequestSlot,
) -> None:
    """Answer the request that a predecessor died with, if there is one.

    First as any other; a request that has killed two workers gets the host's bytes, for which
    nothing of its container is looked at; and one that has killed a third, EIO.
    """
    header = slot.pending()
    if header is None:
        slot.forget_deaths()
        return
    deaths = slot.count_death()
    if deaths > _POISONOUS_DEATHS:
        _log.error("a request has killed %d workers, and gets EIO: %s", deaths, header)
        RequestLoop(fd, Refuser(), buffer=slot.buffer).answer_left_over()
    else:
        for_host = deaths == _POISONOUS_DEATHS
        if for_host:
            _log.error(
                "a request has killed %d workers, and gets the host's bytes: %s", deaths, header
            )
        with closing(make_tree(config, hierarchies, handles, for_host=for_host)) as tree:
            RequestLoop(fd, Session(tree, state), buffer=slot.buffer).answer_left_over()
    slot.forget_deaths()


def make_tree(
    config: ServeConfig,
    hierarchies: Hierarchies,
    handles: HandleStore,
    *,
    for_host: bool = False,
) -> LiveTree:
    """Return the filesystem that one worker serves; `for_host` takes every reader for the host."""
    observatory = Observatory(
        hierarchies,
        HostFiles(config.proc, config.sys),
        RecordStore(config.records_directory),
        cpu_count=config.cpu_count,
        on_fallback=_log_fallback,
        max_files=max(64, _raise_file_limit() - _FILES_KEPT_FREE),
    )
    return LiveTree(
        observatory,
        Nobody() if for_host else Identifier(config.proc),
        handles,
        config.views,
        with_cpu_folder=config.with_cpu_folder,
    )


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
