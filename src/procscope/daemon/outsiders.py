"""Who walks into the pinned tree from no container: counted, and warned of once for each program.

It was led to the live tree: what it mounts from there is right, only slower. Engines look at each
path themselves before a runtime mounts it from inside; that is counted, and nothing to warn of.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from procscope.ids import Pid

_log = logging.getLogger(__name__)
_MOST_PROGRAMS = 16
"""Anybody can start programs of many names; each is told of once."""
_MOST_NAME_BYTES = 64
_ENGINES = frozenset(f"'{name}'" for name in ("containerd", "crio", "dockerd", "kubelet", "podman"))


class Outsiders:
    """Those that one worker has seen."""

    def __init__(self, proc: str, count: Callable[[], None]) -> None:
        self._proc = proc
        self._count = count
        self._told: set[str] = set()

    def note(self, pid: Pid) -> None:
        """Count a path that was walked by `pid`, and warn of its program the first time."""
        self._count()
        if len(self._told) >= _MOST_PROGRAMS:
            return
        name = self._name(pid)
        if name not in _ENGINES and name not in self._told:
            self._told.add(name)
            _log.warning(
                "%s, in no container, was led from the pinned tree to the live one, which is right "
                "for whatever it mounts from there, and slower",
                name,
            )

    def _name(self, pid: Pid) -> str:
        """Return the program's name, with nothing in it that a terminal would obey."""
        try:
            with open(os.path.join(self._proc, str(pid), "comm"), "rb") as file:
                name = file.read(_MOST_NAME_BYTES).removesuffix(b"\n")
        except OSError:
            return "a process that is not seen here"
        return ascii(name.decode("utf-8", "replace"))
