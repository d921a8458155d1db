"""New pods get volumes and mounts in every container, and nothing of theirs is touched."""

from __future__ import annotations

import pytest

from procscope.inject.docker import DEFAULT_FILES
from procscope.kubernetes.admission import Outcome, review
from procscope.kubernetes.settings import NamespaceFacts, Settings
from tests.unit.kubernetes import jsonpatch
from tests.unit.kubernetes.objects import (
    DEFAULT,
    OPT_IN,
    PLAIN,
    admit_pod,
    body,
    container,
    mount_paths,
    patched,
    patched_pod,
    pod,
    status,
    warnings,
)

TARGETS = ["/" + file for file in DEFAULT_FILES]


def own(path: str, name: str = "mine") -> dict[str, str]:
    return {"name": name, "mountPath": path}


def test_every_container_gets_every_file() -> None:
    created = pod(
        OPT_IN,
        initContainers=[container("setup"), container("sidecar", restartPolicy="Always")],
        containers=[container("web"), container("log")],
    )
    spec = patched_pod(created)["spec"]
    for each in spec["initContainers"] + spec["containers"]:
        assert mount_paths(each) == TARGETS
        assert all(mount["readOnly"] is True for mount in each["volumeMounts"])
    names = {mount["name"] for mount in spec["containers"][0]["volumeMounts"]}
    assert names == {volume["name"] for volume in spec["volumes"]}


def test_the_volumes_are_host_paths_with_a_type() -> None:
    volumes = {
        volume["name"]: volume["hostPath"] for volume in patched_pod(pod(OPT_IN))["spec"]["volumes"]
    }
    assert volumes["procscope-proc-meminfo"] == {
        "path": "/var/lib/procscope/mount/proc/meminfo",
        "type": "File",
    }
    assert volumes["procscope-sys-devices-system-cpu"] == {
        "path": "/var/lib/procscope/mount/self/sys/devices/system/cpu",
        "type": "Directory",
    }
    assert len(volumes) == len(DEFAULT_FILES)


def test_the_pod_tells_what_it_was_given() -> None:
    verdict = admit_pod(pod({**OPT_IN, "procscope.io/files": "meminfo,cpuinfo"}))
    assert verdict.outcome is Outcome.INJECTED
    after = patched(pod({**OPT_IN, "procscope.io/files": "meminfo,cpuinfo"}), verdict)
    assert status(after) == "injected: proc/cpuinfo,proc/meminfo"
    assert warnings(verdict) == []


def test_the_response_is_that_of_the_request() -> None:
    response = admit_pod(pod(OPT_IN)).response
    assert response["apiVersion"] == "admission.k8s.io/v1"
    assert response["kind"] == "AdmissionReview"
    assert response["response"]["uid"] == "0df28fbd-5f5f-11e8-bc74-36e6bb280816"
    assert response["response"]["allowed"] is True


def test_a_dry_run_is_answered_alike() -> None:
    real = review(body(pod(OPT_IN)), DEFAULT, PLAIN)
    dry = review(body(pod(OPT_IN), dry_run=True), DEFAULT, PLAIN)
    assert real == dry


def test_nobody_asked() -> None:
    verdict = admit_pod(pod())
    assert verdict.outcome is Outcome.NOT_ASKED
    assert set(verdict.response["response"]) == {"uid", "allowed"}


def test_an_opt_out_leaves_no_trace() -> None:
    verdict = admit_pod(pod({"procscope.io/inject": "false"}), Settings(require_annotation=False))
    assert verdict.outcome is Outcome.NOT_ASKED
    assert set(verdict.response["response"]) == {"uid", "allowed"}


def test_a_namespace_that_asks() -> None:
    asking = NamespaceFacts(labels={"procscope.io/inject": "true"})
    after = patched_pod(pod(), namespace=asking)
    assert mount_paths(after["spec"]["containers"][0]) == TARGETS
    assert (status(after) or "").startswith("injected: ")


def test_null_is_as_absent() -> None:
    created = pod(volumes=None, initContainers=None, containers=[container(volumeMounts=None)])
    created["metadata"]["annotations"] = None
    after = patched_pod(created, Settings(require_annotation=False))
    assert mount_paths(after["spec"]["containers"][0]) == TARGETS


@pytest.mark.parametrize("written", ["/proc/meminfo", "/proc/meminfo/", "proc//meminfo"])
def test_a_mount_of_its_own_at_a_file_is_kept(written: str) -> None:
    created = pod(
        OPT_IN, containers=[container("web", volumeMounts=[own(written)]), container("b")]
    )
    after = patched_pod(created)
    web, other = after["spec"]["containers"]
    assert mount_paths(web) == [written, *(path for path in TARGETS if path != "/proc/meminfo")]
    assert mount_paths(other) == TARGETS
    assert (status(after) or "").endswith("; web keeps its own /proc/meminfo")


@pytest.mark.parametrize(
    ("path", "left_out"),
    [
        ("/proc", [path for path in TARGETS if path.startswith("/proc/")]),
        ("/sys", ["/sys/devices/system/cpu"]),
        ("/sys/devices/system/cpu/online", ["/sys/devices/system/cpu"]),
        ("/", TARGETS),
        ("/process", []),
        ("/proc/meminfo2", []),
        ("/sys/devices/system/cpu2", []),
        ("/data/../proc", [path for path in TARGETS if path.startswith("/proc/")]),
    ],
)
def test_mounts_above_and_below_are_in_the_way(path: str, left_out: list[str]) -> None:
    after = patched_pod(pod(OPT_IN, containers=[container(volumeMounts=[own(path)])]))
    assert mount_paths(after["spec"]["containers"][0]) == [
        path,
        *(target for target in TARGETS if target not in left_out),
    ]


def test_a_block_device_is_in_the_way_too() -> None:
    device = {"name": "disk", "devicePath": "/proc/stat"}
    after = patched_pod(pod(OPT_IN, containers=[container(volumeDevices=[device])]))
    assert "/proc/stat" not in mount_paths(after["spec"]["containers"][0])


def test_no_volume_without_a_mount() -> None:
    created = pod(OPT_IN, containers=[container(volumeMounts=[own("/proc/meminfo")])])
    names = [volume["name"] for volume in patched_pod(created)["spec"]["volumes"]]
    assert "procscope-proc-meminfo" not in names
    assert "procscope-proc-stat" in names


def test_nothing_left_to_mount_is_no_fault() -> None:
    created = pod(OPT_IN, containers=[container(volumeMounts=[own("/")])])
    verdict = admit_pod(created)
    assert verdict.outcome is Outcome.UNCHANGED
    assert warnings(verdict) == []
    after = patched(created, verdict)
    assert after["spec"] == created["spec"]
    assert status(after) == "skipped: nothing to mount; web keeps its own /"


def test_another_volume_of_the_name_keeps_it() -> None:
    taken = [{"name": "procscope-proc-stat", "emptyDir": {}}, {"name": "procscope-proc-stat-2"}]
    created = pod({**OPT_IN, "procscope.io/files": "stat"}, volumes=taken)
    after = patched_pod(created)["spec"]
    assert after["volumes"][:2] == taken
    assert after["volumes"][2]["name"] == "procscope-proc-stat-3"
    assert after["containers"][0]["volumeMounts"][0]["name"] == "procscope-proc-stat-3"


def test_a_volume_of_the_same_source_is_used() -> None:
    source = {"path": "/var/lib/procscope/mount/proc/stat", "type": "File"}
    created = pod(
        {**OPT_IN, "procscope.io/files": "stat"}, volumes=[{"name": "mine", "hostPath": source}]
    )
    after = patched_pod(created)["spec"]
    assert after["volumes"] == created["spec"]["volumes"]
    assert after["containers"][0]["volumeMounts"][0]["name"] == "mine"


@pytest.mark.parametrize("folder", ["", "self/"])
def test_a_volume_of_the_other_tree_is_used_too(folder: str) -> None:
    """Whoever has put it there, or was asked before with other settings, has chosen."""
    source = {"path": f"/var/lib/procscope/mount/{folder}proc/cpuinfo", "type": "File"}
    asked = {**OPT_IN, "procscope.io/files": "cpuinfo"}
    created = pod(asked, volumes=[{"name": "mine", "hostPath": source}])
    after = patched_pod(created)["spec"]
    assert after["volumes"] == created["spec"]["volumes"]
    assert after["containers"][0]["volumeMounts"][0]["name"] == "mine"


def test_a_word_for_pinning_that_there_is_not_is_named() -> None:
    verdict = admit_pod(pod({**OPT_IN, "procscope.io/pinned": "yes"}))
    assert verdict.outcome is Outcome.INJECTED
    assert warnings(verdict) == [
        'procscope: procscope.io/pinned is "yes", none of "none", "limits", "all"'
    ]


def test_a_volume_of_the_same_path_that_makes_folders_is_not_used() -> None:
    source = {"path": "/var/lib/procscope/mount/proc/stat", "type": "DirectoryOrCreate"}
    created = pod(
        {**OPT_IN, "procscope.io/files": "stat"}, volumes=[{"name": "mine", "hostPath": source}]
    )
    after = patched_pod(created)["spec"]
    assert after["containers"][0]["volumeMounts"][0]["name"] == "procscope-proc-stat"


def test_a_sidecar_that_came_after_us_is_given_files_when_asked_again() -> None:
    once = patched_pod(pod(OPT_IN))
    once["spec"]["containers"].append(container("sidecar"))
    twice = patched_pod(once)
    assert mount_paths(twice["spec"]["containers"][1]) == TARGETS
    assert twice["spec"]["containers"][0] == once["spec"]["containers"][0]
    assert twice["spec"]["volumes"] == once["spec"]["volumes"]


def test_unknown_files_are_left_out_with_a_warning() -> None:
    created = pod({**OPT_IN, "procscope.io/files": "vmstat,uptime"})
    verdict = admit_pod(created)
    assert warnings(verdict) == ['procscope: no such file: "vmstat"']
    assert mount_paths(patched(created, verdict)["spec"]["containers"][0]) == ["/proc/uptime"]


def test_only_unknown_files() -> None:
    created = pod({**OPT_IN, "procscope.io/files": "vmstat"})
    verdict = admit_pod(created)
    assert (verdict.outcome, verdict.reason) == (Outcome.SKIPPED, "no-files")
    assert warnings(verdict) == ['procscope: not injected: no such files: "vmstat"']
    assert patched(created, verdict)["spec"] == created["spec"]


def test_names_are_escaped_in_paths() -> None:
    operations = jsonpatch.operations_of(admit_pod(pod(OPT_IN)).response)
    assert operations[-1]["path"] == "/metadata/annotations/procscope.io~1status"


@pytest.mark.parametrize("subresource", ["status", "resize", "exec", "binding", "eviction"])
@pytest.mark.parametrize("operation", ["CREATE", "UPDATE", "CONNECT", "DELETE"])
def test_other_requests_are_admitted_as_they_are(subresource: str, operation: str) -> None:
    sent = body(pod(OPT_IN), operation=operation, subresource=subresource, old=pod(OPT_IN))
    verdict = review(sent, DEFAULT, PLAIN)
    assert verdict.outcome is Outcome.IGNORED
    assert set(verdict.response["response"]) == {"uid", "allowed"}


@pytest.mark.parametrize("operation", ["UPDATE", "CONNECT", "DELETE", "PATCH", ""])
def test_a_pod_is_injected_at_its_creation_only(operation: str) -> None:
    sent = body(pod(OPT_IN), operation=operation, old=pod(OPT_IN))
    assert review(sent, DEFAULT, PLAIN).outcome is Outcome.IGNORED
