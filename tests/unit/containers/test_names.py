"""Proves: a container's names are found where its runtime keeps them, and garbage gives none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from procscope.containers.container import Container
from procscope.containers.names import names_of
from procscope.ids import CgroupPath, ContainerKey

ID = "0123456789abcdef" * 4
DOCKER = f"var/lib/docker/containers/{ID}/config.v2.json"
PODMAN = "var/lib/containers/storage/overlay-containers/containers.json"
CRIO = f"run/containers/storage/overlay-containers/{ID}/userdata/config.json"
CONTAINERD = f"run/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json"
STATE_FILES = (DOCKER, PODMAN, CRIO, CONTAINERD, "etc/docker/daemon.json")


def container(runtime: str = "docker", id_: str = ID) -> Container:
    return Container(ContainerKey("k"), {"": CgroupPath(f"/{id_}")}, runtime, id_)


def put(root: Path, path: str, content: object) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


def names(root: Path, runtime: str = "docker", id_: str = ID) -> tuple[str, ...]:
    return names_of(container(runtime, id_), str(root))


def test_docker(tmp_path: Path) -> None:
    put(tmp_path, DOCKER, {"ID": ID, "Name": "/web", "State": {"Running": True}})
    assert names(tmp_path) == ("web",)
    assert names(tmp_path, id_="f" * 64) == ()


def test_docker_with_another_data_root(tmp_path: Path) -> None:
    put(tmp_path, "etc/docker/daemon.json", {"data-root": "/srv/docker"})
    put(tmp_path, f"srv/docker/containers/{ID}/config.v2.json", {"Name": "/db"})
    put(tmp_path, DOCKER, {"Name": "/old"})
    assert names(tmp_path) == ("db",)


def test_podman(tmp_path: Path) -> None:
    rows = [{"id": "f" * 64, "names": ["other"]}, {"id": ID, "names": ["web", "www"]}]
    put(tmp_path, PODMAN, rows)
    assert names(tmp_path, "podman") == ("web", "www")


def test_containerd_tells_pod_and_container(tmp_path: Path) -> None:
    annotations = {
        "io.kubernetes.cri.sandbox-name": "web-7d4b9",
        "io.kubernetes.cri.container-name": "nginx",
    }
    put(tmp_path, CONTAINERD, {"annotations": annotations})
    assert names(tmp_path, "containerd") == ("web-7d4b9/nginx", "nginx")


def test_nerdctl(tmp_path: Path) -> None:
    path = CONTAINERD.replace("k8s.io", "default")
    put(tmp_path, path, {"annotations": {"nerdctl/name": "box"}})
    assert names(tmp_path, "nerdctl") == ("box",)


def test_crio(tmp_path: Path) -> None:
    annotations = {"io.kubernetes.pod.name": "db-0", "io.kubernetes.container.name": "postgres"}
    put(tmp_path, CRIO, {"annotations": annotations})
    assert names(tmp_path, "crio") == ("db-0/postgres", "postgres")


def test_a_name_that_two_sources_tell_is_one(tmp_path: Path) -> None:
    put(tmp_path, DOCKER, {"Name": "/web"})
    put(tmp_path, PODMAN, [{"id": ID, "names": ["web"]}])
    assert names(tmp_path) == ("web",)


@pytest.mark.parametrize("runtime", ["lxc", "procscope", "machine"])
def test_where_the_id_is_the_name(tmp_path: Path, runtime: str) -> None:
    assert names(tmp_path, runtime, "web") == ("web",)


def test_no_state_gives_no_name(tmp_path: Path) -> None:
    assert names(tmp_path) == ()


def test_a_cgroup_of_no_runtime_is_looked_for_nowhere(tmp_path: Path) -> None:
    """Its id is a path, which must not lead to a file outside of the runtimes' folders."""
    put(tmp_path, "user.slice/config.v2.json", {"Name": "/wrong"})
    assert names(tmp_path, "", f"{tmp_path}/user.slice") == ()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "names", "Name", "annotations", "data-root", "nerdctl/name"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=9,
)
_ROWS = st.lists(st.fixed_dictionaries({"id": st.just(ID), "names": _JSON}), max_size=2)
_GARBAGE = st.binary(max_size=60) | st.one_of(_JSON, _ROWS).map(lambda v: json.dumps(v).encode())


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.fixed_dictionaries(dict.fromkeys(STATE_FILES, _GARBAGE)))
def test_garbage_gives_texts_or_nothing(tmp_path: Path, files: dict[str, bytes]) -> None:
    for path, content in files.items():
        put(tmp_path, path, content)
    assert all(type(name) is str and name for name in names(tmp_path))


@pytest.mark.parametrize("path", STATE_FILES)
def test_endless_nesting_gives_nothing(tmp_path: Path, path: str) -> None:
    put(tmp_path, path, b"[" * 100_000)
    assert names(tmp_path) == ()
