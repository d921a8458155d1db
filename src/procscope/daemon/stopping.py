"""The planned stop: nothing is left behind, neither process nor mount nor a dead file."""

from __future__ import annotations

import logging
import os
import signal

from procscope.cgroup.hierarchy import Hierarchies
from procscope.daemon import control, healing
from procscope.daemon.children import Children
from procscope.daemon.config import ServeConfig
from procscope.daemon.crew import Crew
from procscope.daemon.estate import Estate
from procscope.daemon.inheritance import Inheritance, find_estate, find_pinned
from procscope.daemon.keeping import KeeperLink, find_keeper
from procscope.daemon.mountpoint import Standing, standing
from procscope.daemon.takeover import end_service
from procscope.errors import ProcscopeError
from procscope.fuse import device
from procscope.values import replace

_log = logging.getLogger(__name__)
_PATIENCE_S = 120.0
_WORKERS = 2
_NO_DEVICE = ""
"""Of a daemon that has left no connection: every mount that is dead is taken away."""


def stop(config: ServeConfig) -> bool:
    """Stop the daemon of `config`, or what one that has died has left; False where nothing is.

    Raises ProcscopeError.
    """
    if not os.path.isdir(config.state_directory):
        return False
    if control.ask(config.state_directory, "stop", _PATIENCE_S) is not None:
        return True
    lock_fd = control.acquire_lock(config.state_directory, config.mountpoint)
    try:
        keeper = find_keeper(config.state_directory, config.mountpoint)
        return end_what_is_left(config, Inheritance(), keeper)
    finally:
        os.close(lock_fd)


def end_what_is_left(
    config: ServeConfig, inherited: Inheritance, keeper: KeeperLink | None
) -> bool:
    """Carry out the planned stop where no supervisor runs; False where nothing was left by one.

    The caller must hold the daemon's lock. `inherited` are descriptors that it has itself, which
    are closed. Raises ProcscopeError.
    """
    estate = find_estate(config, inherited, keeper)
    if estate is not None:
        pinned = find_pinned(config, inherited)
        _take_away_while_served(config, estate, pinned)
        end_service(config, estate, pinned, keeper)
        return True
    if keeper is not None:
        keeper.drop()
    found = standing(config.mountpoint, config.proc)
    if found is Standing.LIVE:
        raise ProcscopeError(
            f"{config.mountpoint} is served by a daemon with another --run-directory",
            hint="give that one",
        )
    healing.take_away(config, healing.source_of(config, _NO_DEVICE))
    if found is Standing.DEAD:
        device.unmount(config.mountpoint)
    return found is Standing.DEAD or keeper is not None


def _take_away_while_served(config: ServeConfig, estate: Estate, pinned: Estate | None) -> None:
    """Take the files away from containers, while workers of our own give out the host's bytes.

    Those that were left may be gone. Who reads meanwhile, and who looks for a mount below a folder
    of ours, would wait for ever.
    """
    signals = (signal.SIGCHLD, signal.SIGTERM)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    children = Children(signals)
    try:
        few = replace(config, workers=_WORKERS)
        crew = Crew(few, estate, Hierarchies(), as_host=True)
        crew.start(children, dies_with_supervisor=True)
        fuse_fds = [estate.fuse_fd]
        if pinned is not None:
            crew = Crew(few, pinned, Hierarchies(), as_host=True, pinned=True)
            crew.start(children, dies_with_supervisor=True)
            fuse_fds.append(pinned.fuse_fd)
        pinned_device = "" if pinned is None else pinned.state.device
        source = healing.source_of(config, estate.state.device, pinned_device)
        healing.take_away(config, source, fuse_fds)
    finally:
        children.stop()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def no_supervisor(config: ServeConfig) -> ProcscopeError:
    """Return the error of a command that needs a supervisor to be asked."""
    serving_on = standing(config.mountpoint, config.proc) is Standing.LIVE
    return ProcscopeError(
        f"no supervisor runs for {config.mountpoint}"
        + (", but workers serve on" if serving_on else ""),
        hint="start `procscope serve`",
    )
