"""Where this level keeps what it has built; see `tests.cache`."""

from collections.abc import Callable
from pathlib import Path

import tests.cache
from tests.cache import key_of

__all__ = ["cache_dir", "cached", "key_of"]


def cache_dir() -> Path:
    """Where build results are kept: $PROCSCOPE_CACHE/machine, by default ~/.cache/procscope."""
    return tests.cache.cache_dir("machine")


def cached(key: str, build: Callable[[Path], None]) -> Path:
    """The directory of the result `key`; `build` fills it when it is not there yet."""
    return tests.cache.cached(cache_dir(), key, build)
