"""Proves: the containers of a host are found in its cgroup trees, and one by id, name or path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from procscope.cgroup.hierarchy import Hierarchies, discover
from procscope.containers.identity import container_by_name
from procscope.containers.listing import container_at, find_container, list_containers
from procscope.errors import ProcscopeError
from procscope.ids import CgroupPath
from tests.unit.cgroup.trees import V2_MOUNT, mount_line, mounts_below

A = "0123456789abcdef" * 4
B = "0123fedcba987654" * 4
SCOPE = f"/system.slice/docker-{A}.scope"


def v2_host(root: Path, *paths: str) -> Hierarchies:
    top = root / "sys/fs/cgroup"
    for path in ("", *paths):
        (top / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
    (top / "cgroup.controllers").write_text("cpu memory\n")
    return discover(mounts_below(root, V2_MOUNT))


def hybrid_host(root: Path, *paths: str) -> Hierarchies:
    """`paths` in the v1 hierarchies, an empty v2 one beside them."""
    lines: list[str] = []
    for controller in ("cpu", "memory", "misc"):
        top = root / "sys/fs/cgroup" / controller
        top.mkdir(parents=True)
        (top / "cgroup.sane_behavior").write_text("0\n")
        lines.append(mount_line(f"/sys/fs/cgroup/{controller}", "cgroup", controller))
        for path in paths if controller != "misc" else ():
            (top / path.lstrip("/")).mkdir(parents=True)
    (root / "sys/fs/cgroup/unified").mkdir()
    lines.append(mount_line("/sys/fs/cgroup/unified", "cgroup2", "nsdelegate"))
    return discover(mounts_below(root, "".join(lines)))


def name_docker(root: Path, id_: str, name: str) -> None:
    state = root / f"var/lib/docker/containers/{id_}/config.v2.json"
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({"Name": f"/{name}"}))


def test_each_container_is_listed_once(tmp_path: Path) -> None:
    host = v2_host(tmp_path, f"{SCOPE}/init.scope", "/lxc.payload.web/a/b", "/user.slice")
    found = {(one.runtime, one.id): dict(one.cgroups) for one in list_containers(host)}
    assert found == {
        ("docker", A): {"": SCOPE},
        ("lxc", "web"): {"": "/lxc.payload.web"},
    }


def test_a_host_without_containers_lists_none(tmp_path: Path) -> None:
    assert list(list_containers(v2_host(tmp_path, "/user.slice"))) == []
    assert list(list_containers(Hierarchies())) == []


def test_containers_of_one_name_in_two_places_are_two(tmp_path: Path) -> None:
    host = v2_host(tmp_path, "/lxc.payload.a/lxc.payload.x", "/lxc.payload.b/lxc.payload.x")
    paths = {one.cgroups[""] for one in list_containers(host)}
    assert paths == {
        "/lxc.payload.a",
        "/lxc.payload.a/lxc.payload.x",
        "/lxc.payload.b",
        "/lxc.payload.b/lxc.payload.x",
    }


def test_v1_hierarchies_make_one_container(tmp_path: Path) -> None:
    (container,) = list_containers(hybrid_host(tmp_path, f"/docker/{A}"))
    assert dict(container.cgroups) == {"cpu": f"/docker/{A}", "memory": f"/docker/{A}"}


def test_a_listed_container_has_the_key_that_its_processes_have(tmp_path: Path) -> None:
    """Else a command would not continue the daemon's record."""
    (listed,) = list_containers(hybrid_host(tmp_path, f"/docker/{A}"))
    inside = CgroupPath(f"/docker/{A}/sub")
    paths = {"cpu": inside, "memory": inside, "misc": "/", "": "/system.slice/docker.service"}
    of_process = container_by_name({key: CgroupPath(path) for key, path in paths.items()})
    assert of_process is not None
    assert of_process.key == listed.key


@pytest.mark.parametrize("wanted", [A, A[:12], A[:5], "web"])
def test_one_is_found_by_id_its_beginning_or_name(tmp_path: Path, wanted: str) -> None:
    host = v2_host(tmp_path, SCOPE, f"/docker/{B}")
    name_docker(tmp_path, A, "web")
    name_docker(tmp_path, B, "db")
    assert find_container(host, wanted, str(tmp_path)).id == A


def test_a_beginning_of_two_ids_names_both(tmp_path: Path) -> None:
    host = v2_host(tmp_path, SCOPE, f"/docker/{B}")
    with pytest.raises(ProcscopeError) as caught:
        find_container(host, "0123", str(tmp_path))
    assert caught.value.message == "2 containers answer to '0123'"
    assert A in caught.value.hint
    assert B in caught.value.hint


def test_a_name_of_two_containers_is_refused(tmp_path: Path) -> None:
    host = v2_host(tmp_path, SCOPE, f"/docker/{B}")
    for id_ in (A, B):
        name_docker(tmp_path, id_, "web")
    with pytest.raises(ProcscopeError, match="2 containers answer to 'web'"):
        find_container(host, "web", str(tmp_path))


@pytest.mark.parametrize("wanted", [A, A[:12], "web"])
def test_one_that_imitates_another_inside_its_own_cgroup_is_not_meant(
    tmp_path: Path, wanted: str
) -> None:
    host = v2_host(tmp_path, SCOPE, f"/docker/{B}/docker-{A}.scope")
    name_docker(tmp_path, A, "web")
    found = find_container(host, wanted, str(tmp_path))
    assert dict(found.cgroups) == {"": SCOPE}


def test_one_inside_another_is_found_where_it_is_the_only_one(tmp_path: Path) -> None:
    host = v2_host(tmp_path, f"/docker/{B}/docker-{A}.scope")
    found = find_container(host, A, str(tmp_path))
    assert dict(found.cgroups) == {"": f"/docker/{B}/docker-{A}.scope"}


def test_a_short_beginning_is_no_id(tmp_path: Path) -> None:
    host = v2_host(tmp_path, SCOPE)
    name_docker(tmp_path, A, "012")
    assert find_container(host, "012", str(tmp_path)).id == A
    with pytest.raises(ProcscopeError):
        find_container(host, "01", str(tmp_path))


@pytest.mark.parametrize("wanted", ["", "nothing", "f" * 64, "/", "../x", "\0"])
def test_an_unknown_one_tells_what_there_is(tmp_path: Path, wanted: str) -> None:
    host = v2_host(tmp_path, SCOPE, "/lxc.payload.box")
    name_docker(tmp_path, A, "web")
    with pytest.raises(ProcscopeError) as caught:
        find_container(host, wanted, str(tmp_path))
    assert caught.value.hint == "there are box, web"


def test_no_container_at_all_says_so(tmp_path: Path) -> None:
    with pytest.raises(ProcscopeError, match="no container of a runtime that is known here"):
        find_container(v2_host(tmp_path), "web", str(tmp_path))


@pytest.mark.parametrize("form", ["/batch/job", "batch/job", "/batch/job/", "{root}/batch/job"])
def test_a_cgroup_is_found_by_path_or_directory(tmp_path: Path, form: str) -> None:
    host = v2_host(tmp_path, "/batch/job")
    container = container_at(host, form.format(root=tmp_path / "sys/fs/cgroup"))
    assert container is not None
    assert dict(container.cgroups) == {"": "/batch/job"}
    assert container.id == "/batch/job"


def test_a_v1_directory_stands_for_all_controllers(tmp_path: Path) -> None:
    host = hybrid_host(tmp_path, "/batch")
    container = container_at(host, f"{tmp_path}/sys/fs/cgroup/memory/batch")
    assert container is not None
    assert dict(container.cgroups) == {"cpu": "/batch", "memory": "/batch"}


@pytest.mark.parametrize("path", ["/", "", "{root}"])
def test_the_root_cgroup_is_the_host(tmp_path: Path, path: str) -> None:
    assert container_at(v2_host(tmp_path), path.format(root=tmp_path / "sys/fs/cgroup")) is None


@pytest.mark.parametrize("path", ["/nothing", "/../..", "/batch/../batch", "/cgroup.controllers"])
def test_a_path_of_no_cgroup_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(ProcscopeError, match="there is no cgroup"):
        container_at(v2_host(tmp_path, "/batch"), path)
