"""Proves: the cgroup paths that runtimes really make name the container that they are of.

And that any other text is taken as no container, with no error.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.containers.runtimes import RUNTIMES, match_path
from procscope.ids import CgroupPath

A = "0123456789abcdef" * 4
B = "fedcba9876543210" * 4
POD = "pod8b7a1c2e-6f0d-4b7e-9a53-0f3c2d1e4b5a"
POD_SLICE = "kubepods-burstable-pod8b7a1c2e_6f0d_4b7e_9a53_0f3c2d1e4b5a.slice"
KUBE = f"/kubepods.slice/kubepods-burstable.slice/{POD_SLICE}"
USER = "/user.slice/user-1000.slice/user@1000.service"
KIND = f"/system.slice/docker-{A}.scope/kubelet.slice/kubelet-kubepods.slice"

CONTAINERS = [
    ("docker, cgroupfs", f"/docker/{A}", "docker", A, ""),
    ("docker, systemd", f"/system.slice/docker-{A}.scope", "docker", A, ""),
    ("docker, cgroup-parent", f"/batch/low/{A}", "oci", A, ""),
    ("docker, cgroup-parent slice", f"/batch.slice/docker-{A}.scope", "docker", A, ""),
    ("docker, rootless", f"{USER}/user.slice/docker-{A}.scope", "docker", A, ""),
    ("systemd in docker", f"/docker/{A}", "docker", A, "/init.scope"),
    ("a service in docker", f"/docker/{A}", "docker", A, "/system.slice/nginx.service"),
    ("docker in docker", f"/docker/{A}/docker/{B}", "docker", B, "/x"),
    ("docker in docker, systemd", f"/docker/{A}/system.slice/docker-{B}.scope", "docker", B, ""),
    ("kubernetes, guaranteed", f"/kubepods/{POD}/{A}", "oci", A, ""),
    ("kubernetes, burstable", f"/kubepods/burstable/{POD}/{A}", "oci", A, ""),
    ("kubernetes, best effort", f"/kubepods/besteffort/{POD}/{A}", "oci", A, "/sub"),
    ("containerd, systemd", f"{KUBE}/cri-containerd-{A}.scope", "containerd", A, ""),
    (
        "containerd, mixed drivers",
        f"/system.slice/{POD_SLICE}:cri-containerd:{A}",
        "containerd",
        A,
        "",
    ),
    ("cri-docker, systemd", f"{KUBE}/docker-{A}.scope", "docker", A, ""),
    ("CRI-O, systemd", f"{KUBE}/crio-{A}.scope", "crio", A, ""),
    ("CRI-O with crun", f"{KUBE}/crio-{A}.scope", "crio", A, "/container"),
    ("CRI-O, cgroupfs", f"/kubepods/burstable/{POD}/crio-{A}", "crio", A, ""),
    ("podman", f"/machine.slice/libpod-{A}.scope", "podman", A, ""),
    ("podman with crun", f"/machine.slice/libpod-{A}.scope", "podman", A, "/container"),
    ("podman, rootless", f"{USER}/user.slice/libpod-{A}.scope", "podman", A, "/container"),
    ("podman, cgroupfs", f"/libpod_parent/libpod-{A}", "podman", A, ""),
    ("podman, a Quadlet unit", f"/system.slice/web.service/libpod-payload-{A}", "podman", A, ""),
    ("nerdctl", f"/system.slice/nerdctl-{A}.scope", "nerdctl", A, ""),
    ("nerdctl, cgroupfs", f"/default/{A}", "oci", A, ""),
    ("LXC", "/lxc.payload.web", "lxc", "web", ""),
    ("LXC, a user's", f"{USER}/lxc.payload.my-box", "lxc", "my-box", "/.lxc"),
    ("LXC in LXC", "/lxc.payload.outer/lxc.payload.inner", "lxc", "inner", "/init.scope"),
    ("LXC, one folder for all", "/lxc.payload/web", "lxc", "web", "/system.slice"),
    ("docker in LXC", f"/lxc.payload.ci/docker/{A}", "docker", A, ""),
    ("nspawn, a unit", "/machine.slice/systemd-nspawn@db.service", "machine", "db", "/payload"),
    ("nspawn, a scope", "/machine.slice/machine-db.scope", "machine", "db", "/payload/init.scope"),
    ("procscope", "/procscope/build-1", "procscope", "build-1", "/deeper"),
    ("procscope in docker", f"/docker/{A}/procscope/x", "procscope", "x", ""),
    (
        "kind",
        f"{KIND}/kubelet-kubepods-burstable.slice/kubelet-{POD_SLICE}/cri-containerd-{B}.scope",
        "containerd",
        B,
        "",
    ),
    (
        "kind's node itself",
        f"/system.slice/docker-{A}.scope",
        "docker",
        A,
        "/kubelet.slice/kubelet.service",
    ),
    ("k3s in docker", f"/docker/{A}/kubepods/besteffort/{POD}/{B}", "oci", B, ""),
]

NONE = [
    "/",
    "",
    "/init.scope",
    "/system.slice/docker.service",
    "/system.slice/containerd.service",
    "/user.slice/user-1000.slice/session-3.scope",
    f"{USER}/app.slice/app-firefox-4711.scope",
    KUBE,
    f"/kubepods/burstable/{POD}",
    f"{KUBE}/crio-conmon-{A}.scope",
    f"/machine.slice/libpod-conmon-{A}.scope",
    f"/machine.slice/crio-conmon-{A}.scope",
    f"/system.slice/web.service/runtime/libpod-conmon-{A}.scope",
    "/lxc.monitor.web",
    "/lxc.payload",
    "/docker",
    "/procscope",
    "/machine.slice",
    f"/docker/{A[:-1]}",
    f"/docker/{A}0",
    f"/docker/{A.upper()}",
    f"/system.slice/docker-{A}.service",
    f"/system.slice/docker-{A}.scope.d",
    f"/system.slice/my-docker-{A}.scope",
]


@pytest.mark.parametrize(
    ("path", "runtime", "id_", "below"),
    [row[1:] for row in CONTAINERS],
    ids=[row[0] for row in CONTAINERS],
)
def test_a_runtimes_path_names_its_container(path: str, runtime: str, id_: str, below: str) -> None:
    match = match_path(CgroupPath(path + below))
    assert match is not None
    assert (match.runtime, match.id, match.path) == (runtime, id_, path)


@pytest.mark.parametrize("path", NONE)
def test_what_no_runtime_made_is_no_container(path: str) -> None:
    assert match_path(CgroupPath(path)) is None


def test_every_row_of_the_table_has_an_example() -> None:
    """A new runtime comes with a recorded path."""
    examples = {path.rpartition("/")[2] for _, path, *_ in CONTAINERS}
    for runtime in RUNTIMES:
        assert any(runtime.component.fullmatch(example) for example in examples), runtime


_PIECES = st.sampled_from(
    [
        *(A, B, "docker", "lxc.payload", "procscope", "machine.slice", "", ".", "a.scope"),
        *("x:y", "é", f"libpod-{A}.scope", f"docker-{B}.scope", "lxc.payload.", "lxc.payload.a"),
    ]
)
_PATHS = st.one_of(
    st.text(),
    st.lists(_PIECES | st.text(max_size=9), max_size=9).map(lambda parts: "/" + "/".join(parts)),
)


@given(_PATHS)
def test_any_text_is_a_container_at_its_beginning_or_none(text: str) -> None:
    path = CgroupPath(text)
    match = match_path(path)
    assert match == match_path(path)
    if match is not None:
        assert f"{path}/".startswith(f"{match.path}/")
        assert match.id
        assert match.id in match.path.rpartition("/")[2]
        assert match_path(match.path) == match


@given(_PATHS, st.sampled_from([f"/docker/{A}", f"/system.slice/docker-{A}.scope"]))
def test_the_innermost_container_wins(outside: str, inner: str) -> None:
    match = match_path(CgroupPath(outside + inner))
    assert match is not None
    assert (match.id, match.path) == (A, outside + inner)
