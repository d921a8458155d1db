"""Nobody may do more than he does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.deploy.documents import POLICY_MODE, WEBHOOK_MODE, of_kind, pod_specs, the

NAMED = "resourceNames"


def test_the_webhook_may_read_namespaces_and_patch_its_own_configuration() -> None:
    (role,) = of_kind(WEBHOOK_MODE, "ClusterRole")
    assert role["rules"] == [
        {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "list", "watch"]},
        {
            "apiGroups": ["admissionregistration.k8s.io"],
            "resources": ["mutatingwebhookconfigurations"],
            NAMED: ["procscope"],
            "verbs": ["get", "patch"],
        },
    ]


def test_in_its_namespace_it_may_touch_one_secret_and_one_lease() -> None:
    (role,) = of_kind(WEBHOOK_MODE, "Role")
    rules = {rule["resources"][0]: rule for rule in role["rules"]}
    assert rules.keys() == {"secrets", "leases"}
    assert rules["secrets"][NAMED] == ["procscope-webhook-tls"]
    assert rules["leases"][NAMED] == ["procscope-webhook"]
    for rule in rules.values():
        assert set(rule["verbs"]) == {"get", "create", "update", "patch"}


@pytest.mark.parametrize("kind", ["RoleBinding", "ClusterRoleBinding"])
def test_the_roles_are_bound_to_the_webhook_alone(kind: str) -> None:
    (binding,) = of_kind(WEBHOOK_MODE, kind)
    (subject,) = binding["subjects"]
    account = the(WEBHOOK_MODE, "Deployment", "procscope-webhook")["spec"]["template"]["spec"]
    assert subject["name"] == account["serviceAccountName"]
    assert subject["namespace"] == "procscope"


@pytest.mark.parametrize("path", [WEBHOOK_MODE, POLICY_MODE], ids=lambda path: path.name)
def test_agent_and_keeper_have_no_token(path: Path) -> None:
    tokens = {name: spec["automountServiceAccountToken"] for name, spec in pod_specs(path)}
    assert tokens.pop("procscope-webhook", True) is True
    assert tokens == {"procscope": False, "procscope-keeper": False}


def test_no_account_gives_its_token_to_who_does_not_ask() -> None:
    for account in of_kind(WEBHOOK_MODE, "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False
