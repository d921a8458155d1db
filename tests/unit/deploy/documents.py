"""What deploy/ has, as plain data."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
CHART = ROOT / "deploy" / "chart"
MANIFESTS = tuple(sorted((ROOT / "deploy" / "manifests").rglob("*.yaml")))
WEBHOOK_MODE = ROOT / "deploy" / "manifests" / "procscope.yaml"
POLICY_MODE = ROOT / "deploy" / "manifests" / "procscope-policy.yaml"
CI_VALUES = tuple(sorted((CHART / "ci").glob("*.yaml")))

Document = dict[str, Any]


def load_all(path: Path) -> list[Document]:
    """The documents of a file of manifests."""
    return [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one]


def of_kind(path: Path, kind: str) -> list[Document]:
    """The documents of one kind."""
    return [document for document in load_all(path) if document["kind"] == kind]


def the(path: Path, kind: str, name: str) -> Document:
    """The one document of that kind and name."""
    (found,) = (one for one in of_kind(path, kind) if one["metadata"]["name"] == name)
    return found


def values(path: Path = CHART / "values.yaml") -> Document:
    """A file of values."""
    loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def schema() -> Document:
    """The schema of the chart's values."""
    loaded = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def pod_specs(path: Path) -> Iterator[tuple[str, Document]]:
    """Name and pod spec of each workload."""
    for document in load_all(path):
        if document["kind"] in ("DaemonSet", "Deployment"):
            yield document["metadata"]["name"], document["spec"]["template"]["spec"]


def script(name: str) -> ModuleType:
    """A program of scripts/, imported."""
    found = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    # Its dataclasses look their module up.
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return module
