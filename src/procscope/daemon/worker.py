"""A worker: answers requests until the mount is gone."""

from __future__ import annotations

import logging
import resource
import signal

from procscope.cgroup.hierarchy import Hierarchies
from procscope.containers.identity import Identifier
from procscope.daemon.config import ServeConfig
from procscope.daemon.handles import HandleStore
from procscope.fuse.loop import RequestHandler, RequestLoop
from procscope.fuse.negotiation import ConnectionState
from procscope.fuse.protocol import Session
from procscope.fuse.trace import Tracer
from procscope.linux import syscalls
from procscope.observe.host import HostFiles
from procscope.observe.observatory import Fallback, Observatory
from procscope.observe.records import RecordStore
from procscope.tree.live import LiveTree

_log = logging.getLogger(__name__)
_FILES_KEPT_FREE = 256
"""Descriptors that are not for cgroup files: identities, host files, one request's own."""


def run_worker(
    config: ServeConfig,
    hierarchies: Hierarchies,
    fd: int,
    state: ConnectionState,
    handles: HandleStore,
    index: int,
    buffer: memoryview,
) -> None:
    """Serve `fd` as worker number `index`. Returns when the mount is gone, or on SIGTERM.

    `buffer` is shared with the worker's predecessors and successors: a request that one of them
    had read when it was killed is answered by the next, else its reader would wait for ever.
    """
    syscalls.set_name(f"procscope-w{index}")
    handles.adopt(index)
    tree = make_tree(config, hierarchies, handles)
    handler: RequestHandler = Session(tree, state)
    if config.debug:
        handler = Tracer(handler, _log)
    loop = RequestLoop(fd, handler, buffer=buffer)
    signal.signal(signal.SIGTERM, lambda *_: loop.stop())
    loop.answer_left_over()
    loop.run()


def make_tree(config: ServeConfig, hierarchies: Hierarchies, handles: HandleStore) -> LiveTree:
    """Return the filesystem that one worker serves."""
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
        Identifier(config.proc),
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
