"""The planned stop: nothing is left behind, neither process nor mount nor a dead file."""

from __future__ import annotations

import logging
import os

from procscope.daemon import control, healing
from procscope.daemon.config import ServeConfig
from procscope.daemon.estate import Estate
from procscope.daemon.inheritance import Inheritance, find_estate
from procscope.daemon.keeping import KeeperLink, find_keeper
from procscope.daemon.mountpoint import Standing, standing
from procscope.daemon.takeover import stop_workers
from procscope.errors import ProcscopeError
from procscope.fuse import device

_log = logging.getLogger(__name__)
_PATIENCE_S = 120.0
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
    lock_fd = control.acquire_lock(config.state_directory)
    try:
        keeper = find_keeper(config.state_directory, config.mountpoint)
        estate = find_estate(config, Inheritance(), keeper)
        if estate is not None:
            source = healing.source_of(config, estate.state.device)
            healing.take_away(config, source, estate.fuse_fd)
            end_service(config, estate, keeper)
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
    finally:
        os.close(lock_fd)


def end_service(config: ServeConfig, estate: Estate, keeper: KeeperLink | None) -> None:
    """End what serves besides the supervisor and its children, and unmount."""
    stop_workers(estate, config)
    if keeper is not None:
        keeper.drop()
    device.unmount(config.mountpoint)
    estate.close()


def no_supervisor(config: ServeConfig) -> ProcscopeError:
    """Return the error of a command that needs a supervisor to be asked."""
    serving_on = standing(config.mountpoint, config.proc) is Standing.LIVE
    return ProcscopeError(
        f"no supervisor runs for {config.mountpoint}"
        + (", but workers serve on" if serving_on else ""),
        hint="start `procscope serve`",
    )
