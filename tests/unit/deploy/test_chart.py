"""The chart's values: one source of truth with the program, and nonsense is refused."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from procscope import __version__
from procscope.inject.docker import MOUNTABLE
from procscope.kubernetes.settings import Settings
from tests.unit.deploy.documents import CHART, CI_VALUES, Document, schema, values


def merged(base: Document, over: Document) -> Document:
    """Values over the chart's own, as Helm merges them: null takes a value away."""
    result = copy.deepcopy(base)
    for key, value in over.items():
        old = result.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            result[key] = merged(old, value)
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = value
    return result


def complaint(over: Document) -> str:
    """What the schema has against these values, empty if nothing."""
    validator = jsonschema.Draft202012Validator(schema())
    return "; ".join(error.message for error in validator.iter_errors(merged(values(), over)))


def leaves(tree: Document, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value that is no table, and every empty table, by its path."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def nested(path: str, value: object) -> Document:
    """The values in which the one at `a.b.c` is set."""
    for key in reversed(path.split(".")):
        value = {key: value}
    assert isinstance(value, dict)
    return value


def test_chart_and_program_are_of_one_version() -> None:
    chart = values(CHART / "Chart.yaml")
    assert chart["version"] == chart["appVersion"] == __version__


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("path", CI_VALUES, ids=lambda path: path.stem)
def test_the_values_of_each_scenario_are_accepted(path: Path) -> None:
    assert complaint(values(path)) == ""


def test_every_value_is_described_and_known_to_the_schema() -> None:
    for path, _ in leaves(values()):
        known = schema()
        for key in path:
            if "$ref" in known:
                known = schema()["$defs"][known["$ref"].rpartition("/")[2]]
            known = known.get("properties", {}).get(key) or known["additionalProperties"]
            assert isinstance(known, dict), ".".join(path)


def test_one_scenario_or_another_changes_every_value() -> None:
    default = dict(leaves(values()))
    unchanged = set(default)
    for file in CI_VALUES:
        changed = dict(leaves(merged(values(), values(file))))
        unchanged -= {path for path in default if changed.get(path) != default[path]}
    assert unchanged == set()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("mode", "webhooks"),
        ("mod", "webhook"),
        ("mountpoint", "/var/lib"),
        ("mountpoint", "/var/lib/procscope/../mount"),
        ("mountpoint", "var/lib/procscope/mount"),
        ("mountpoint", "/var/lib/procscope/mount/"),
        ("runDirectory", "/run"),
        ("image.tag", "a b"),
        ("image.digest", "sha256:1"),
        ("image.pullPolicy", "Sometimes"),
        ("injection.requireAnnotation", "false"),
        ("injection.files", ["passwd"]),
        ("injection.files", "meminfo"),
        ("injection.pinned", "some"),
        ("injection.annotations", ["not a name"]),
        ("injection.excludedNamespaces", ["Kube_System"]),
        ("injection.excludedNamespaces", []),
        ("injection.podSecurity.defaultLevel", "none"),
        ("agent.workers", -1),
        ("agent.cpuCount", "shares"),
        ("agent.port", 80),
        ("agent.maxSurge", 0),
        ("agent.resources", {"limit": {"memory": "1Gi"}}),
        ("agent.resources", {"limits": {"memory": "lots"}}),
        ("agent.nodeSelector", {"ready": True}),
        ("agent.tolerations", [{"key": "a", "effect": "NoStart"}]),
        ("keeper.patienceSeconds", "5s"),
        ("webhook.replicas", 0),
        ("webhook.failurePolicy", "ignore"),
        ("webhook.timeoutSeconds", 31),
        ("webhook.certificates.mode", "certmanager"),
        ("webhook.certificates.mode", "given"),
        ("webhook.certificates.self.lifetime", "90 days"),
        ("webhook.certificates.given.caBundle", "-----BEGIN CERTIFICATE-----"),
        ("networkPolicy.egress.ports", []),
        ("metrics.podMonitor.interval", "often"),
    ],
)
def test_nonsense_is_refused(path: str, value: object) -> None:
    assert complaint(nested(path, value))


def test_the_default_values_are_the_programs_defaults() -> None:
    injection, settings = values()["injection"], Settings()
    assert values()["mountpoint"] == settings.mountpoint
    assert injection["pinned"] == settings.pinned.value
    assert tuple(injection["annotations"]) == settings.annotations
    assert injection["requireAnnotation"] is settings.require_annotation
    assert frozenset(injection["excludedNamespaces"]) == settings.excluded_namespaces
    assert tuple(injection["sandboxedRuntimeClasses"]) == settings.sandboxed_runtime_classes
    assert injection["podSecurity"]["defaultLevel"] == settings.default_pod_security_level
    assert tuple(injection["podSecurity"]["exempt"]) == settings.pod_security_exempt
    assert injection["allowUserNamespaces"] is settings.allow_user_namespaces


def test_the_schema_knows_the_files_that_pods_can_be_given() -> None:
    offered = schema()["properties"]["injection"]["properties"]["files"]["items"]["enum"]
    short = {name.removeprefix("proc/") for name in MOUNTABLE if name.startswith("proc/")}
    assert set(offered) == {*MOUNTABLE, *short}
