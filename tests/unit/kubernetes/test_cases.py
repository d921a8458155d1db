"""The table of pods, for the webhook."""

from __future__ import annotations

import pytest

from procscope.kubernetes.admission import review
from procscope.kubernetes.settings import NamespaceFacts
from tests.unit.kubernetes.cases import CASES, Case
from tests.unit.kubernetes.objects import body, mount_paths, patched, pinned_paths


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_container_is_given_its_files(case: Case) -> None:
    namespace = NamespaceFacts(labels=case.labels, annotations=case.annotations)
    verdict = review(body(case.pod, namespace=case.namespace), case.settings, namespace)
    spec = patched(case.pod, verdict)["spec"]
    before = case.pod["spec"]
    for field in ("initContainers", "containers"):
        for old, new in zip(before.get(field, []), spec.get(field, []), strict=True):
            added = mount_paths(new)[len(mount_paths(old)) :]
            assert sorted(added) == sorted(case.given[new["name"]])
    assert pinned_paths(spec) == case.pinned_paths
