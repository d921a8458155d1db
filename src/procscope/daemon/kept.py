"""Who holds a daemon's descriptors besides itself: its own keeper, another's, the service manager.

An external keeper may come and go at any time; the daemon looks for it, and serves on without.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping

from procscope.daemon import readiness
from procscope.daemon.config import Keeping, ServeConfig
from procscope.daemon.keeping import KeeperLink, StartingKeeper, find_keeper

_log = logging.getLogger(__name__)
_LOOK_EVERY_S = 1.0
_PATIENCE_S = 1.0
"""With an external keeper: nobody may keep the supervisor from its workers."""
_RARER = 10
"""How many times as long as a look took is waited before the next one."""


class Kept:
    """The daemon's side of all that."""

    def __init__(self, config: ServeConfig) -> None:
        """Look whether a predecessor has left a keeper."""
        self._config = config
        self._next_look_s = 0.0
        self.keeper = find_keeper(config.state_directory, config.mountpoint)
        self._starting: StartingKeeper | None = None

    @property
    def outlives_supervisor(self) -> bool:
        """Whether somebody takes the workers over when the supervisor has gone."""
        return self._config.keeper is Keeping.EXTERNAL or self.is_kept()

    def is_kept(self) -> bool:
        """Tell whether the mount lives on when this process ends."""
        return self.keeper is not None or readiness.has_descriptor_store()

    def let_go_of_useless(self) -> None:
        """Have the keeper close what it holds: there is nothing to be made of it."""
        if self.keeper is not None:
            self.keeper.drop()
            self.keeper = None

    def prepare(self) -> None:
        """Begin to start a keeper, where one will be needed and none is there.

        It takes as long as the mount and what belongs to it. Nobody may call this without calling
        `keep` or `give_up` afterwards.
        """
        if self.keeper is None and self._config.keeper is Keeping.OWN:
            try:
                self._starting = StartingKeeper(
                    self._config.state_directory, self._config.mountpoint
                )
            except OSError as error:
                _log.debug("the keeper is started later: %s", error)

    def give_up(self) -> None:
        """End the keeper that was to be given something, and is not."""
        if self._starting is not None:
            with contextlib.suppress(OSError):
                self._started().drop()

    def _started(self) -> KeeperLink:
        starting = self._starting or StartingKeeper(
            self._config.state_directory, self._config.mountpoint
        )
        self._starting = None
        return starting.link()

    def keep(self, descriptors: Mapping[str, int]) -> None:
        """Have the descriptors held, as far as somebody is there to hold them."""
        readiness.store_descriptors(descriptors)
        if self._config.keeper is Keeping.NONE:
            self.let_go_of_useless()
            return
        try:
            if self.keeper is None and self._config.keeper is Keeping.OWN:
                self.keeper = self._started()
            if self.keeper is not None and not self.keeper.is_ending:
                self.keeper.put(descriptors)
                self.keeper.signal_its_end()
                return
        except OSError as error:
            _log.error("there is no keeper, so that a crash would end the mount: %s", error)
        self.close()

    def look_after(self, descriptors: Mapping[str, int]) -> None:
        """See to it that the descriptors are held still, as far as that is this process's part."""
        external = self._config.keeper is Keeping.EXTERNAL
        if self.keeper is not None and self.keeper.has_ended():
            what = "waiting for" if external else "starting"
            _log.error("the keeper has ended; %s another", what)
            self.close()
            if not external:
                self.keep(descriptors)
        if self.keeper is None and external and time.monotonic() >= self._next_look_s:
            self._find(descriptors)

    def has_left(self) -> bool:
        """Tell whether the keeper that there was is going, or gone."""
        return self.keeper is None or self.keeper.has_ended()

    def close(self) -> None:
        """Leave the keeper alone."""
        if self.keeper is not None:
            self.keeper.close()
            self.keeper = None

    def _find(self, descriptors: Mapping[str, int]) -> None:
        began_s = time.monotonic()
        config = self._config
        self.keeper = find_keeper(config.state_directory, config.mountpoint, _PATIENCE_S)
        if self.keeper is not None:
            pid = self.keeper.pid
            self.keep(descriptors)
            if self.keeper is not None:
                _log.info("keeper %d holds the descriptors", pid)
        now_s = time.monotonic()
        self._next_look_s = now_s + max(_LOOK_EVERY_S, _RARER * (now_s - began_s))
