"""The chart, with the helm that installs it: every scenario renders, and nothing is out of date."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from kubernetes_validate import utils  # type: ignore[import-untyped]

from tests.cluster.harness.binaries import binaries
from tests.unit.deploy.documents import CHART, CI_VALUES, MANIFESTS, ROOT, Document

GENERATED = (
    CHART / "templates" / "policy.yaml",
    *(path for path in MANIFESTS if path.parent.name == "manifests"),
)
OF_OPERATORS = ("cert-manager.io", "monitoring.coreos.com")
"""API groups that Kubernetes itself does not have."""


@pytest.fixture(scope="module")
def helm() -> str:
    return binaries().program("helm")


def call(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=60, check=False
    )


def render(helm: str, *options: str | Path) -> list[Document]:
    """The chart's objects. Raises AssertionError where it does not render."""
    done = call(helm, "template", "any-release", CHART, "--namespace", "views", *options)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def test_what_is_generated_is_current(tmp_path: Path, helm: str) -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "manifests", "--output", tmp_path],
        env={"HELM": helm, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(GENERATED) == 3
    for path in GENERATED:
        made = (tmp_path / path.relative_to(ROOT)).read_text(encoding="utf-8")
        assert path.read_text(encoding="utf-8") == made, "make manifests"


@pytest.mark.parametrize("values", CI_VALUES, ids=lambda path: path.stem)
def test_every_scenario_passes_helms_own_checks(helm: str, values: Path) -> None:
    done = call(helm, "lint", "--strict", CHART, "--values", values)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("values", CI_VALUES, ids=lambda path: path.stem)
def test_every_scenario_renders_valid_objects_each_once(helm: str, values: Path) -> None:
    documents = render(helm, "--values", values)
    keys = [(one["kind"], one["metadata"]["name"]) for one in documents]
    assert len(keys) == len(set(keys))
    newest = utils.latest_version()
    for document in documents:
        if document["apiVersion"].partition("/")[0] not in OF_OPERATORS:
            utils.validate(document, newest, strict=True)


@pytest.mark.parametrize("values", CI_VALUES, ids=lambda path: path.stem)
def test_whatever_is_in_a_namespace_is_in_that_of_the_release(helm: str, values: Path) -> None:
    named = {one["metadata"].get("namespace") for one in render(helm, "--values", values)}
    assert named <= {"views", None}


def test_names_do_not_depend_on_the_release(helm: str) -> None:
    names = {one["metadata"]["name"] for one in render(helm)}
    assert {"procscope", "procscope-keeper", "procscope-webhook"} <= names
    assert all(name.startswith("procscope") for name in names)


def test_what_cannot_be_meant_is_refused_by_its_name(helm: str) -> None:
    for option, named in (
        ("mode=webhooks", "/mode"),
        ("agent.worker=3", "worker"),
        ("webhook.certificates.mode=given", "secretName"),
    ):
        done = call(helm, "template", "x", CHART, "--set", option)
        assert done.returncode != 0
        assert named in done.stderr


def test_a_policy_is_not_made_for_values_or_clusters_that_it_does_not_know(helm: str) -> None:
    policy = ("template", "x", CHART, "--set", "mode=policy")
    for options in (("--set", "injection.requireAnnotation=false"), ("--kube-version", "1.35")):
        done = call(helm, *policy, *options)
        assert done.returncode != 0
        assert "mode policy" in done.stderr


def test_given_and_managed_certificates_need_no_right_to_keep_any(helm: str) -> None:
    for scenario in ("cert-manager", "given-certificates"):
        documents = render(helm, "--values", CHART / "ci" / f"{scenario}.yaml")
        assert not [one for one in documents if one["kind"] in ("Role", "Lease", "Secret")]
        (role,) = (one for one in documents if one["kind"] == "ClusterRole")
        assert [rule["resources"] for rule in role["rules"]] == [["namespaces"]]
