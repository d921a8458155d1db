"""Copies of the sources with other versions, and an installation that is switched between them."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from tests.faults.service import SOURCES

_VERSION = re.compile(r'^__version__ = ".*"$', re.MULTILINE)


class Installation:
    """A folder on Python's path that is a link to one of several releases."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = folder / "current"

    def add(self, version: str) -> Path:
        """Make a release of this version, which is not installed yet; return its package."""
        package = self._folder / version / "procscope"
        shutil.copytree(
            SOURCES / "procscope", package, ignore=shutil.ignore_patterns("__pycache__")
        )
        init = package / "__init__.py"
        text, count = _VERSION.subn(f'__version__ = "{version}"', init.read_text())
        assert count == 1
        init.write_text(text)
        return package

    def install(self, version: str) -> None:
        """Make a release the one that is installed, at once, as a package manager's link does."""
        new = self._folder / "new"
        os.symlink(version, new)
        os.replace(new, self.path)
