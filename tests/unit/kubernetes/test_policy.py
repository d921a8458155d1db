"""The policy is a valid object, and what it shares with the webhook is the same.

That its expressions mean the same can only be seen on an API server; `cases` is the table for it.
"""

from __future__ import annotations

import fnmatch
import json
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st
from kubernetes_validate import utils  # type: ignore[import-untyped]

from procscope.inject.docker import MOUNTABLE, mountable
from procscope.kubernetes import policy
from procscope.kubernetes.refusals import glob_expression
from procscope.kubernetes.settings import Settings
from tests.unit.kubernetes.cases import ALL, DEFAULT, OTHER, STRICT

NAMES = st.one_of(
    st.text(alphabet="/aemprocinfutsdvly.*", max_size=12),
    st.builds(
        "".join,
        st.tuples(
            st.sampled_from(["", "/", "//", "proc/", "/proc/", "proc//", "proc/proc/"]),
            st.sampled_from([*(file.removeprefix("proc/") for file in MOUNTABLE), "", "cpu"]),
            st.sampled_from(["", "/", "//", "x"]),
        ),
    ),
)


def spec(settings: Settings) -> dict[str, Any]:
    found: dict[str, Any] = policy.documents(settings)[0]["spec"]
    return found


def expressions(settings: Settings) -> list[str]:
    """All of them, in the order in which they are evaluated."""
    found = spec(settings)
    return [
        *(each["expression"] for each in found["matchConditions"]),
        *(each["expression"] for each in found["variables"]),
        *(each["applyConfiguration"]["expression"] for each in found["mutations"]),
    ]


def served(settings: Settings) -> list[dict[str, str]]:
    """The table of files, which is the same in CEL and in JSON."""
    [text] = [
        each["expression"] for each in spec(settings)["variables"] if each["name"] == "served"
    ]
    rows: list[dict[str, str]] = json.loads(text)
    return rows


@pytest.mark.parametrize("version", ["1.36", "1.37"])
@pytest.mark.parametrize("settings", [DEFAULT, ALL, STRICT, OTHER])
def test_the_documents_are_valid(settings: Settings, version: str) -> None:
    policy_document, binding = policy.documents(settings, name="views")
    for document in (policy_document, binding):
        utils.validate(document, version, strict=True)
    assert binding["spec"]["policyName"] == policy_document["metadata"]["name"] == "views"


@pytest.mark.parametrize("settings", [DEFAULT, ALL, STRICT, OTHER])
def test_a_variable_is_there_before_it_is_used(settings: Settings) -> None:
    known: set[str] = set()
    for variable in spec(settings)["variables"]:
        assert set(re.findall(r"variables\.(\w+)", variable["expression"])) <= known
        known.add(variable["name"])
    for mutation in spec(settings)["mutations"]:
        used = re.findall(r"variables\.(\w+)", mutation["applyConfiguration"]["expression"])
        assert set(used) <= known
    for condition in spec(settings)["matchConditions"]:
        # Neither is there yet when conditions are evaluated.
        assert "variables." not in condition["expression"]
        assert "namespaceObject" not in condition["expression"]


@limits(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(NAMES)
def test_files_are_named_as_for_the_webhook(name: str) -> None:
    matching = [row["file"] for row in served(DEFAULT) if re.search(row["pattern"], name)]
    file = mountable(name)
    assert matching == ([] if file is None else [file])


def test_the_files_come_from_the_mountpoint() -> None:
    rows = {row["file"]: row for row in served(OTHER)}
    assert set(rows) == set(MOUNTABLE)
    assert {rows["proc/stat"][word] for word in ("none", "limits")} == {"/srv/views/proc/stat"}
    assert rows["proc/stat"]["all"] == "/srv/views/self/proc/stat"
    assert rows["proc/cpuinfo"]["limits"] == "/srv/views/self/proc/cpuinfo"
    assert rows["proc/stat"]["volume"] == "procscope-proc-stat"
    assert rows["sys/devices/system/cpu"]["type"] == "Directory"


def test_what_is_not_set_has_no_expression() -> None:
    nothing = Settings(
        sandboxed_runtime_classes=(), allow_user_namespaces=True, excluded_namespaces=frozenset()
    )
    names = {condition["name"] for condition in spec(nothing)["matchConditions"]}
    assert not names & {"not-a-sandbox", "not-in-a-user-namespace"}
    assert "namespaceSelector" not in spec(nothing)["matchConstraints"]
    assert not any("matches" in text for text in expressions(nothing)[: len(names)])


def test_a_pod_is_never_kept_from_starting() -> None:
    assert spec(DEFAULT)["failurePolicy"] == "Ignore"


def test_a_container_that_another_webhook_adds_is_seen() -> None:
    assert spec(DEFAULT)["reinvocationPolicy"] == "IfNeeded"


@limits(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.text(alphabet="ab-.*", max_size=4), min_size=1, max_size=3),
    st.text(alphabet="ab-.", max_size=5),
)
def test_patterns_match_as_in_a_shell(patterns: list[str], name: str) -> None:
    expected = any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    assert (re.search(glob_expression(patterns), name) is not None) == expected
