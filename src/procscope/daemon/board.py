"""What a supervisor shows to the process beside it that answers over HTTP, and counts for it.

A page of memory that both map: nobody waits for anybody to read or write it.
"""

from __future__ import annotations

import time
from enum import IntEnum

from procscope.daemon.sharedmemory import SharedMemory

MEMFD_NAME = "procscope-board"
_BEAT_NS, _PHASE, _HEALED, _GIVEN_BACK, _FALLBACKS = range(5)
_MOST_WORKERS = 64
_OUTSIDERS = _FALLBACKS + _MOST_WORKERS
_BYTES = 4096
_NS_PER_S = 1_000_000_000


class Phase(IntEnum):
    """What an agent is about."""

    STARTING = 0
    WAITING = 1
    """Another daemon has the mount and does not hand it over."""
    SERVING = 2
    STANDBY = 3
    """It has handed over to a newer one."""


class Board:
    """One supervisor's counters. Each word has one writer at a time."""

    def __init__(self, memory: SharedMemory) -> None:
        self._memory = memory

    @classmethod
    def create(cls) -> Board:
        """Make one of zeros."""
        return cls(SharedMemory.create(MEMFD_NAME, _BYTES))

    @classmethod
    def adopt(cls, fd: int) -> Board:
        """Return the one that another process has made."""
        return cls(SharedMemory(fd))

    @property
    def fd(self) -> int:
        """The memfd."""
        return self._memory.fd

    def beat(self) -> None:
        """Note that the supervisor goes round its loop."""
        self._memory.words[_BEAT_NS] = time.monotonic_ns()

    def beat_age_s(self) -> float:
        """Return how long ago that was; forever where it never was."""
        beat_ns = self._memory.words[_BEAT_NS]
        return (time.monotonic_ns() - beat_ns) / _NS_PER_S if beat_ns else float("inf")

    @property
    def phase(self) -> Phase:
        """What the agent is about."""
        return Phase(self._memory.words[_PHASE])

    @phase.setter
    def phase(self, phase: Phase) -> None:
        self._memory.words[_PHASE] = phase

    def count_healed(self, files: int) -> None:
        """Count dead files of containers that were replaced."""
        self._memory.words[_HEALED] += files

    def count_given_back(self, files: int) -> None:
        """Count files that containers got back after a planned stop."""
        self._memory.words[_GIVEN_BACK] += files

    def count_fallback(self, worker: int) -> None:
        """Count a file of a container that was answered with the host's bytes."""
        self._memory.words[_FALLBACKS + worker % _MOST_WORKERS] += 1

    def count_outsider(self) -> None:
        """Count a path through the pinned tree that was walked from no container."""
        self._memory.words[_OUTSIDERS] += 1

    @property
    def outsiders(self) -> int:
        """Paths through the pinned tree that were walked from no container."""
        return self._memory.words[_OUTSIDERS]

    @property
    def healed_files(self) -> int:
        """Dead files of containers that were replaced."""
        return self._memory.words[_HEALED]

    @property
    def given_back_files(self) -> int:
        """Files that containers got back after a planned stop."""
        return self._memory.words[_GIVEN_BACK]

    @property
    def fallbacks(self) -> int:
        """Files of containers that were answered with the host's bytes."""
        return sum(self._memory.words[_FALLBACKS : _FALLBACKS + _MOST_WORKERS])

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()
