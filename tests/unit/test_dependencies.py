"""The daemon and the commands run on a bare Python: nothing outside the standard library.

Proves it of the source, for every import at any depth of any function. `procscope.kubernetes` may
have dependencies, by the extra of the same name.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import procscope

PACKAGE = Path(procscope.__file__).parent
ALLOWED = sys.stdlib_module_names | {"procscope"}


def imported(source: str) -> Iterator[str]:
    """The top-level name of every import in a source text."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # A relative import stays inside the package.
            yield "procscope" if node.level else (node.module or "").partition(".")[0]


def modules() -> list[Path]:
    """Every module of the package but those of the `kubernetes` extra."""
    paths = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
    return [path for path in paths if path.parts[0] != "kubernetes"]


@pytest.mark.parametrize("module", modules(), ids=str)
def test_only_the_standard_library_is_imported(module: Path) -> None:
    assert set(imported((PACKAGE / module).read_text())) <= ALLOWED


def test_the_walk_finds_imports_at_any_depth() -> None:
    source = """
import os.path, yaml
from . import ids
from kubernetes.client import api
def later():
    if True:
        from requests import get
"""
    assert sorted(imported(source)) == ["kubernetes", "os", "procscope", "requests", "yaml"]


def test_the_package_was_found() -> None:
    assert Path("errors.py") in modules()
