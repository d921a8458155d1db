"""What holds for every request: it is admitted, nothing of the object's is lost, once is enough."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from procscope.inject.docker import MOUNTABLE
from procscope.kubernetes.admission import review
from procscope.kubernetes.reviews import namespace_of
from procscope.kubernetes.settings import UNKNOWN, NamespaceFacts, Settings
from tests.unit.kubernetes import jsonpatch
from tests.unit.kubernetes.objects import body

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no failure."""
KEYS = [
    *("request", "uid", "kind", "resource"),
    *("group", "subResource", "namespace", "operation"),
    *("object", "oldObject", "metadata", "annotations"),
    *("ownerReferences", "controller", "spec", "template"),
    *("jobTemplate", "containers", "initContainers", "ephemeralContainers"),
    *("volumes", "volumeMounts", "volumeDevices", "name"),
    *("mountPath", "devicePath", "hostPath", "path"),
    *("type", "os", "nodeSelector", "affinity"),
    *("nodeAffinity", "nodeSelectorTerms", "matchExpressions", "runtimeClassName"),
    *("hostUsers", "priorityClassName", "procscope.io/inject", "procscope.io/files"),
    *("procscope.io/carried", "requiredDuringSchedulingIgnoredDuringExecution", "a/b~c"),
]
WORDS = [
    *("CREATE", "UPDATE", "pods", "apps", "batch", "deployments", "jobs", "cronjobs", "true"),
    *("ephemeralcontainers", "false", "windows", "kata", "meminfo,nosuch", "", "\ud800", "é\n"),
    *("/proc", "/proc/meminfo", "/sys/devices/system/cpu/online", "../..", "\0"),
]
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text()
)
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=25,
)
PATHS = st.sampled_from(
    [
        *("/" + file for file in MOUNTABLE),
        *("/proc", "/sys", "/", "proc/stat/", "/data", "/sys/devices/system/cpu/online"),
    ]
)
NAMES = st.sampled_from(
    ["data", "procscope-proc-stat", "procscope-proc-stat-2", "procscope-proc-meminfo"]
)
UNKNOWN_FIELDS = st.dictionaries(st.sampled_from(["x-new", "a/b~c", "~1"]), LEAVES, max_size=2)
VALUES = st.sampled_from(["true", "false", "yes"])
ANNOTATIONS = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "procscope.io/inject": VALUES,
        "initializer.kubernetes.io/lxcfs": VALUES,
        "procscope.io/files": st.sampled_from(["meminfo", "stat,nosuch", "nosuch", ""]),
        "procscope.io/status": st.just("injected: proc/meminfo"),
        "mine/a~b": st.just("1"),
    },
)
NAMESPACES = st.sampled_from(
    [
        NamespaceFacts(),
        NamespaceFacts(labels={"procscope.io/inject": "true"}),
        NamespaceFacts(labels={"procscope.io/inject": "false"}),
        NamespaceFacts(labels={"pod-security.kubernetes.io/enforce": "baseline"}),
        NamespaceFacts(annotations={"procscope.io/files": "stat"}),
        UNKNOWN,
    ]
)
SETTINGS = st.sampled_from(
    [Settings(), Settings(require_annotation=False), Settings(pod_security_exempt=("*",))]
)


def mount(name: str, path: str, unknown: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "mountPath": path, **unknown}


def source(file: str) -> dict[str, Any]:
    return {"hostPath": {"path": f"/var/lib/procscope/mount/{file}", "type": "File"}}


MOUNTS = st.none() | st.lists(
    st.builds(mount, NAMES, PATHS, UNKNOWN_FIELDS), max_size=3, unique_by=lambda m: m["mountPath"]
)
VOLUMES = st.none() | st.lists(
    st.builds(
        lambda name, kind, unknown: {"name": name, **kind, **unknown},
        NAMES,
        st.sampled_from([{"emptyDir": {}}, source("proc/stat"), source("proc/meminfo")]),
        UNKNOWN_FIELDS,
    ),
    max_size=3,
    unique_by=lambda volume: volume["name"],
)


@st.composite
def containers(draw: st.DrawFn, most: int) -> list[dict[str, Any]]:
    names = [f"c{index}" for index in range(draw(st.integers(1, most)))]
    return [{"name": name, "volumeMounts": draw(MOUNTS), **draw(UNKNOWN_FIELDS)} for name in names]


@st.composite
def pods(draw: st.DrawFn) -> dict[str, Any]:
    spec = {
        "containers": draw(containers(3)),
        "initContainers": draw(st.none() | containers(2)),
        "volumes": draw(VOLUMES),
        **draw(st.sampled_from([{}, {}, {}, {"hostUsers": False}, {"runtimeClassName": "kata"}])),
        **draw(UNKNOWN_FIELDS),
    }
    metadata = {"name": "web", "annotations": draw(ANNOTATIONS), **draw(UNKNOWN_FIELDS)}
    return {"metadata": metadata, "spec": spec, **draw(UNKNOWN_FIELDS)}


@st.composite
def damaged_pods(draw: st.DrawFn) -> dict[str, Any]:
    """A pod in which anything at all stands in one place."""
    damaged = copy.deepcopy(draw(pods()))
    place: Any = damaged
    while True:
        key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not (isinstance(place[key], (dict, list)) and place[key]) or draw(st.booleans()):
            place[key] = draw(JSON)
            return damaged
        place = place[key]


def contains(after: object, before: object) -> bool:
    """Whether all of `before` is in `after`, lists as their beginnings; null is as absent."""
    if before is None:
        return True
    if isinstance(before, dict):
        return isinstance(after, dict) and all(
            value is None or (key in after and contains(after[key], value))
            for key, value in before.items()
        )
    if isinstance(before, list):
        return (
            isinstance(after, list)
            and len(after) >= len(before)
            and all(map(contains, after, before))
        )
    return repr(after) == repr(before)


def without_status(pod: dict[str, Any]) -> dict[str, Any]:
    metadata = dict(pod["metadata"])
    annotations = metadata.get("annotations") or {}
    metadata["annotations"] = {
        name: value for name, value in annotations.items() if name != "procscope.io/status"
    }
    return {**pod, "metadata": metadata}


@UNHURRIED
@given(JSON, SETTINGS, NAMESPACES)
def test_any_json_is_admitted(sent: object, installed: Settings, namespace: NamespaceFacts) -> None:
    response = review(sent, installed, namespace).response
    assert response["response"]["allowed"] is True
    assert isinstance(response["response"]["uid"], str)
    assert isinstance(namespace_of(sent), str)


@UNHURRIED
@given(
    JSON,
    JSON,
    st.sampled_from(
        [
            ("", "pods", "", "CREATE"),
            ("", "pods", "ephemeralcontainers", "UPDATE"),
            ("apps", "deployments", "", "CREATE"),
            ("batch", "cronjobs", "", "UPDATE"),
        ]
    ),
    SETTINGS,
)
def test_any_object_is_admitted(
    changed: object, old: object, what: tuple[str, str, str, str], installed: Settings
) -> None:
    group, resource, subresource, operation = what
    sent = body(
        changed, kind=(group, resource), subresource=subresource, operation=operation, old=old
    )
    response = review(sent, installed, NamespaceFacts()).response
    assert response["response"]["allowed"] is True
    # The patch, if there is one, fits the object.
    jsonpatch.apply(changed, jsonpatch.operations_of(response))


@UNHURRIED
@given(damaged_pods(), damaged_pods(), st.booleans(), SETTINGS)
def test_a_damaged_pod_is_admitted(
    changed: dict[str, Any], old: dict[str, Any], created: bool, installed: Settings
) -> None:
    sent = body(changed, old=old)
    if not created:
        sent = body(changed, operation="UPDATE", subresource="ephemeralcontainers", old=old)
    response = review(sent, installed, NamespaceFacts()).response
    operations = jsonpatch.operations_of(response)
    assert contains(jsonpatch.apply(changed, operations)["spec"], changed["spec"])


@UNHURRIED
@given(pods(), SETTINGS, NAMESPACES)
def test_a_pod_loses_nothing(
    created: dict[str, Any], installed: Settings, namespace: NamespaceFacts
) -> None:
    operations = jsonpatch.operations_of(review(body(created), installed, namespace).response)
    assert {operation["op"] for operation in operations} <= {"add"}
    after = jsonpatch.apply(created, operations)
    assert contains(without_status(after), without_status(created))


@UNHURRIED
@given(pods(), SETTINGS, NAMESPACES)
def test_once_is_enough(
    created: dict[str, Any], installed: Settings, namespace: NamespaceFacts
) -> None:
    operations = jsonpatch.operations_of(review(body(created), installed, namespace).response)
    after = jsonpatch.apply(created, operations)
    again = review(body(after), installed, namespace).response
    assert jsonpatch.operations_of(again) == []


@UNHURRIED
@given(pods(), SETTINGS, NAMESPACES)
def test_an_injected_pod_is_one_that_the_api_accepts(
    created: dict[str, Any], installed: Settings, namespace: NamespaceFacts
) -> None:
    operations = jsonpatch.operations_of(review(body(created), installed, namespace).response)
    spec = jsonpatch.apply(created, operations)["spec"]
    names = [volume["name"] for volume in spec["volumes"] or []]
    assert len(names) == len(set(names))
    added = len(created["spec"]["volumes"] or [])
    for each in spec["containers"] + (spec["initContainers"] or []):
        paths = [each_mount["mountPath"] for each_mount in each["volumeMounts"] or []]
        assert len(paths) == len(set(paths))
        used = {m["name"] for m in each["volumeMounts"] or [] if m.get("readOnly") is True}
        assert used <= set(names)
    for volume in (spec["volumes"] or [])[added:]:
        assert volume["hostPath"]["type"] in {"File", "Directory"}


@UNHURRIED
@given(ANNOTATIONS, ANNOTATIONS, ANNOTATIONS, SETTINGS)
def test_a_workload_keeps_what_is_its_own(
    first: dict[str, str] | None,
    second: dict[str, str] | None,
    template: dict[str, str] | None,
    installed: Settings,
) -> None:
    """Created with one set of annotations, updated to another: as if created with the other."""

    def workload(outer: dict[str, str] | None, inner: dict[str, str] | None) -> dict[str, Any]:
        return {
            "metadata": {"annotations": outer},
            "spec": {"template": {"metadata": {"annotations": inner}, "spec": {}}},
        }

    def admitted(document: dict[str, Any], operation: str) -> dict[str, str]:
        sent = body(document, kind=("apps", "deployments"), operation=operation)
        response = review(sent, installed, NamespaceFacts()).response
        after = jsonpatch.apply(document, jsonpatch.operations_of(response))
        found: dict[str, str] | None = after["spec"]["template"]["metadata"]["annotations"]
        return found or {}

    carried = admitted(workload(first, template), "CREATE")
    assert carried.items() >= (template or {}).items()
    assert admitted(workload(first, carried), "UPDATE") == carried
    assert admitted(workload(second, carried), "UPDATE") == admitted(
        workload(second, template), "CREATE"
    )
