"""The plain manifests: valid for the API server, and understood by the commands that they run."""

from __future__ import annotations

from pathlib import Path

import pytest
from kubernetes_validate import utils  # type: ignore[import-untyped]

from procscope import __version__
from procscope.cli.commands import build_parser
from procscope.inject.docker import DEFAULT_FILES
from procscope.kubernetes.settings import CARRIED, FILES, Settings
from tests.unit.deploy.documents import (
    MANIFESTS,
    POLICY_MODE,
    ROOT,
    WEBHOOK_MODE,
    Document,
    load_all,
    of_kind,
    pod_specs,
    script,
    the,
)

NEWEST = list(dict.fromkeys(utils.major_minor(one) for one in utils.all_versions()))[-3:]
BEFORE_POLICIES = ("1.35",)
"""Releases that have policies in an older version of the API only; mode policy is not for them."""
MODES = (WEBHOOK_MODE, POLICY_MODE)


@pytest.mark.parametrize("version", NEWEST)
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_every_document_is_valid_and_has_no_unknown_field(path: Path, version: str) -> None:
    documents = load_all(path)
    assert documents
    for document in documents:
        if document["kind"].startswith("MutatingAdmissionPolicy") and version in BEFORE_POLICIES:
            continue
        utils.validate(document, version, strict=True)


def test_the_three_newest_releases_are_three() -> None:
    assert len(NEWEST) == 3


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_no_object_is_there_twice(path: Path) -> None:
    keys = [(one["kind"], one["metadata"]["name"]) for one in load_all(path)]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("path", MODES, ids=lambda path: path.name)
def test_the_namespace_comes_first_and_lets_the_agents_in(path: Path) -> None:
    first, *rest = load_all(path)
    assert first["kind"] == "Namespace"
    assert first["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"
    namespaces = {one["metadata"].get("namespace", first["metadata"]["name"]) for one in rest}
    assert namespaces == {first["metadata"]["name"]}


@pytest.mark.parametrize("path", MODES, ids=lambda path: path.name)
def test_the_commands_take_the_arguments_of_their_containers(path: Path) -> None:
    parser = build_parser(lambda _: True)
    commands = set()
    for _, spec in pod_specs(path):
        for container in spec["containers"]:
            commands.add(parser.parse_args(container["args"]).procscope_command)
    webhook = {"webhook"} if path == WEBHOOK_MODE else set()
    assert commands == {"agent", "keeper"} | webhook


@pytest.mark.parametrize("path", MODES, ids=lambda path: path.name)
def test_every_container_runs_the_image_of_this_release(path: Path) -> None:
    images = {c["image"] for _, spec in pod_specs(path) for c in spec["containers"]}
    assert images == {f"procscope:{__version__}"}


@pytest.mark.parametrize("path", MODES, ids=lambda path: path.name)
def test_ports_of_probes_and_of_the_service_are_ports_of_the_container(path: Path) -> None:
    for name, spec in pod_specs(path):
        (container,) = spec["containers"]
        ports = {port["name"] for port in container.get("ports", ())}
        asked = {
            container[probe]["httpGet"]["port"]
            for probe in ("readinessProbe", "livenessProbe")
            if probe in container
        }
        for service in of_kind(path, "Service"):
            if service["metadata"]["name"] == name:
                asked |= {port["targetPort"] for port in service["spec"]["ports"]}
        assert asked <= ports


@pytest.mark.parametrize("path", MODES, ids=lambda path: path.name)
@pytest.mark.parametrize("name", ["procscope", "procscope-keeper"])
def test_agent_and_keeper_share_the_nodes_mount(path: Path, name: str) -> None:
    spec = the(path, "DaemonSet", name)["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    mountpoint = Path(Settings().mountpoint)
    assert container["args"][1] == str(mountpoint)
    (volume,) = (v for v in spec["volumes"] if v["hostPath"]["path"] == str(mountpoint.parent))
    # With a type the kubelet would look at a dead mount below, and not start the pod.
    assert "type" not in volume["hostPath"]
    (mount,) = (m for m in container["volumeMounts"] if m["name"] == volume["name"])
    assert mount["mountPropagation"] == "Bidirectional"
    for one in container["volumeMounts"]:
        (source,) = (v for v in spec["volumes"] if v["name"] == one["name"])
        assert source["hostPath"]["path"] == one["mountPath"]


@pytest.mark.parametrize("path", MODES, ids=lambda path: path.name)
def test_an_upgrade_starts_the_new_agent_beside_the_old_one_and_waits_for_all(
    path: Path,
) -> None:
    agent = the(path, "DaemonSet", "procscope")["spec"]
    assert agent["updateStrategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }
    # Two of them share the node: a port of the node could belong to one alone.
    assert "hostNetwork" not in agent["template"]["spec"]
    keeper = the(path, "DaemonSet", "procscope-keeper")["spec"]
    # Helm and `kubectl rollout status` never see the end of an upgrade of one with OnDelete.
    assert keeper["updateStrategy"] == {"type": "RollingUpdate"}


@pytest.mark.parametrize("path", MODES, ids=lambda path: path.name)
def test_every_node_gets_agent_and_keeper_and_loses_them_last(path: Path) -> None:
    for daemonset in of_kind(path, "DaemonSet"):
        spec = daemonset["spec"]["template"]["spec"]
        assert spec["tolerations"] == [{"operator": "Exists"}]
        assert spec["priorityClassName"] == "system-node-critical"
        assert spec["hostPID"] is True


def test_the_webhook_has_no_right_on_its_node() -> None:
    spec = the(WEBHOOK_MODE, "Deployment", "procscope-webhook")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostPID", "hostNetwork", "hostIPC"} & spec.keys()
    assert not [v for v in spec.get("volumes", ()) if "hostPath" in v]


def test_the_webhook_has_time_to_drain() -> None:
    spec = the(WEBHOOK_MODE, "Deployment", "procscope-webhook")["spec"]["template"]["spec"]
    args = build_parser(lambda _: True).parse_args(spec["containers"][0]["args"])
    assert spec["terminationGracePeriodSeconds"] >= args.drain + 10


def webhooks() -> dict[str, Document]:
    """The entries of the configuration by their names."""
    entries = the(WEBHOOK_MODE, "MutatingWebhookConfiguration", "procscope")["webhooks"]
    return {entry["name"]: entry for entry in entries}


def test_admission_never_keeps_a_pod_from_starting() -> None:
    assert webhooks().keys() == {"annotated.procscope.io", "namespace.procscope.io"}
    for entry in webhooks().values():
        assert entry["failurePolicy"] == "Ignore"
        assert entry["timeoutSeconds"] == 3
        assert entry["reinvocationPolicy"] == "IfNeeded"
        assert entry["sideEffects"] == "None"


def test_admission_never_changes_the_pods_that_it_depends_on() -> None:
    own = {
        one["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"]
        for kind in ("DaemonSet", "Deployment")
        for one in of_kind(WEBHOOK_MODE, kind)
    }
    for entry in webhooks().values():
        (rule,) = entry["objectSelector"]["matchExpressions"]
        assert (rule["key"], rule["operator"]) == ("app.kubernetes.io/name", "NotIn")
        assert set(rule["values"]) == own
        (namespaces,) = entry["namespaceSelector"]["matchExpressions"]
        assert set(namespaces["values"]) == Settings().excluded_namespaces


def test_the_ca_bundle_is_nobodys_but_the_webhooks() -> None:
    for entry in webhooks().values():
        assert "caBundle" not in entry["clientConfig"]
    assert "data" not in the(WEBHOOK_MODE, "Secret", "procscope-webhook-tls")
    assert "spec" not in the(WEBHOOK_MODE, "Lease", "procscope-webhook")


def test_the_api_server_asks_for_everything_that_says_something() -> None:
    expression = webhooks()["annotated.procscope.io"]["matchConditions"][0]["expression"]
    for name in (*Settings().inject_annotations, FILES, CARRIED):
        assert f'"{name}"' in expression
    other = webhooks()["namespace.procscope.io"]["matchConditions"][0]["expression"]
    # So that each pod is asked for once.
    assert other.replace(" ", "") == f"!{expression}".replace(" ", "")


def test_the_webhooks_options_are_those_of_the_configuration() -> None:
    spec = the(WEBHOOK_MODE, "Deployment", "procscope-webhook")["spec"]["template"]["spec"]
    args = build_parser(lambda _: True).parse_args(spec["containers"][0]["args"])
    config = the(WEBHOOK_MODE, "MutatingWebhookConfiguration", "procscope")
    assert args.webhook_configuration == config["metadata"]["name"]
    for entry in config["webhooks"]:
        assert entry["clientConfig"]["service"]["name"] == args.service
        assert entry["clientConfig"]["service"]["path"] == "/mutate"
    assert the(WEBHOOK_MODE, "Secret", args.secret)
    assert the(WEBHOOK_MODE, "Lease", args.lease)
    assert the(WEBHOOK_MODE, "Service", args.service)
    assert args.mountpoint == Settings().mountpoint
    assert tuple(args.annotation) == Settings().annotations


def test_policy_mode_runs_nothing_but_the_agents() -> None:
    kinds = {document["kind"] for document in load_all(POLICY_MODE)}
    assert not kinds & {"Deployment", "Service", "Secret", "ClusterRole", "Role"}
    assert {"MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"} <= kinds
    text = POLICY_MODE.read_text(encoding="utf-8")
    assert all(file in text for file in DEFAULT_FILES)
    assert Settings().mountpoint in text


def test_the_policy_is_made_from_the_program() -> None:
    """The plain manifests need helm: `tests/cluster` checks that they are current."""
    template = ROOT / "deploy" / "chart" / "templates" / "policy.yaml"
    assert template.read_text(encoding="utf-8") == script("manifests").policy_template(), (
        "make manifests"
    )


def test_the_example_is_annotated_as_the_webhook_is_told() -> None:
    web = the(ROOT / "deploy" / "manifests" / "examples" / "web.yaml", "Deployment", "web")
    (name,) = web["metadata"]["annotations"]
    assert name in Settings().inject_annotations
