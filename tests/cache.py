"""Directories of finished build results, each found by a hash of what it was made from."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path


def cache_dir(kind: str) -> Path:
    """Where results of one kind are kept: $PROCSCOPE_CACHE/KIND, by default ~/.cache/procscope."""
    base = os.environ.get("PROCSCOPE_CACHE") or "~/.cache/procscope"
    return Path(base).expanduser() / kind


def key_of(kind: str, recipe: object) -> str:
    """A name for the result of a recipe; the recipe must be made of plain JSON values."""
    text = json.dumps(recipe, sort_keys=True)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def cached(root: Path, key: str, build: Callable[[Path], None]) -> Path:
    """The directory of the result `key` below `root`; `build` fills it when it is not there yet.

    A result appears whole or not at all: it is built under another name and renamed. Of two
    processes that want the same result, one builds and the other waits for it.
    """
    done = root / key
    if done.is_dir():
        return done
    root.mkdir(parents=True, exist_ok=True)
    with open(root / f"{key}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.is_dir():
            return done
        partial = root / f"{key}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            build(partial)
            partial.rename(done)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return done
