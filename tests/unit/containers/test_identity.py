"""Proves: each reader is put into the container that the rules name, and cached answers hold.

Plain files stand for `/proc`. That the kernel fails an open `/proc/PID/cgroup` once the process
is gone is its own part; here such a file reads as another text.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import ref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.cgroup.files import CgroupDirectory, FileBudget
from procscope.containers.container import container_of_paths
from procscope.containers.identity import Identifier, container_by_name
from procscope.ids import CgroupPath, Pid
from procscope.linux.procfs import parse_cgroups
from tests.unit.containers.fakeproc import FakeProc, open_below

A = "0123456789abcdef" * 4
B = "fedcba9876543210" * 4


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path / "proc")


@pytest.fixture
def identifier(proc: FakeProc) -> Iterator[Identifier]:
    identifier = Identifier(proc.path, capacity=8)
    yield identifier
    identifier.close()
    assert open_below(proc.root) == []


def v2(path: str) -> str:
    return f"0::{path}\n"


def cgroups_of(identifier: Identifier, pid: int) -> dict[str, str] | None:
    container = identifier.container_of(Pid(pid))
    return None if container is None else dict(container.cgroups)


@pytest.mark.parametrize("pid", [0, -1, 4711])
def test_a_reader_that_is_not_to_be_seen_is_the_host(identifier: Identifier, pid: int) -> None:
    assert identifier.container_of(Pid(pid)) is None


def test_the_root_cgroup_is_the_host(proc: FakeProc, identifier: Identifier) -> None:
    proc.add(10, "5:memory:/\n4:cpu,cpuacct:/\n0::/\n")
    assert identifier.container_of(Pid(10)) is None


def test_a_runtimes_container_ends_the_path(proc: FakeProc, identifier: Identifier) -> None:
    proc.add(10, v2(f"/docker/{A}/system.slice/nginx.service"), namespace="a", nspid=(10, 5))
    container = identifier.container_of(Pid(10))
    assert container is not None
    assert (container.runtime, container.id) == ("docker", A)
    assert container.cgroups == {"": f"/docker/{A}"}


def test_sub_cgroups_of_a_container_are_one_container(
    proc: FakeProc, identifier: Identifier
) -> None:
    for pid, below in ((10, ""), (11, "/init.scope"), (12, "/a/b")):
        proc.add(pid, v2(f"/docker/{A}{below}"))
    first, *others = [identifier.container_of(Pid(pid)) for pid in (10, 11, 12)]
    assert first is not None
    assert others == [first, first]


def test_a_container_in_the_hosts_pid_namespace_is_itself(
    proc: FakeProc, identifier: Identifier
) -> None:
    proc.add(10, v2(f"/docker/{A}"))
    assert cgroups_of(identifier, 10) == {"": f"/docker/{A}"}


def test_a_shared_pid_namespace_does_not_join_containers(
    proc: FakeProc, identifier: Identifier
) -> None:
    """The namespace's init is another container's (a pod's pause): the reader is in its own."""
    proc.add(10, v2(f"/kubepods/pod1/{A}"), namespace="pod", nspid=(10, 1))
    proc.add(11, v2(f"/kubepods/pod1/{B}"), namespace="pod", nspid=(11, 7))
    assert cgroups_of(identifier, 11) == {"": f"/kubepods/pod1/{B}"}


def test_an_unknown_runtimes_container_is_its_inits_cgroup(
    proc: FakeProc, identifier: Identifier
) -> None:
    proc.add(10, v2("/box/one"), namespace="a", nspid=(10, 1))
    proc.add(11, v2("/box/one/system.slice/cron"), namespace="a", nspid=(11, 2), parent=10)
    assert cgroups_of(identifier, 11) == {"": "/box/one"}
    assert cgroups_of(identifier, 10) == {"": "/box/one"}


def test_systemds_own_scope_is_not_the_container(proc: FakeProc, identifier: Identifier) -> None:
    proc.add(10, v2("/box/init.scope"), namespace="a", nspid=(10, 1))
    proc.add(11, v2("/box/system.slice/cron.service"), namespace="a", nspid=(11, 20), parent=10)
    assert cgroups_of(identifier, 11) == {"": "/box"}
    assert identifier.container_of(Pid(10)) == identifier.container_of(Pid(11))


def test_a_process_that_was_brought_into_a_namespace_finds_its_init(
    proc: FakeProc, identifier: Identifier
) -> None:
    """Its parents are outside (nsenter), so that the namespace is searched."""
    proc.add(9, v2("/user.slice"))
    proc.add(10, v2("/box"), namespace="a", nspid=(10, 1))
    proc.add(12, v2("/box/exec"), namespace="a", nspid=(12, 30), parent=9)
    assert cgroups_of(identifier, 12) == {"": "/box"}


def test_an_init_elsewhere_says_nothing(proc: FakeProc, identifier: Identifier) -> None:
    """The reader's cgroup is not below its init's: its own counts."""
    proc.add(10, v2("/box"), namespace="a", nspid=(10, 1))
    proc.add(11, v2("/boxes/two"), namespace="a", nspid=(11, 2), parent=10)
    assert cgroups_of(identifier, 11) == {"": "/boxes/two"}


def test_an_inner_namespaces_init_is_the_inner_one(proc: FakeProc, identifier: Identifier) -> None:
    proc.add(10, v2("/box"), namespace="a", nspid=(10, 1))
    proc.add(11, v2("/box/inner"), namespace="b", nspid=(11, 2, 1), parent=10)
    proc.add(12, v2("/box/inner/x"), namespace="b", nspid=(12, 3, 2), parent=11)
    assert cgroups_of(identifier, 12) == {"": "/box/inner"}


def test_a_namespace_without_an_init_in_sight_says_nothing(
    proc: FakeProc, identifier: Identifier
) -> None:
    proc.add(11, v2("/box/a"), namespace="a", nspid=(11, 2))
    assert cgroups_of(identifier, 11) == {"": "/box/a"}


def test_a_member_that_ends_during_the_search_is_passed_over(
    proc: FakeProc, identifier: Identifier
) -> None:
    """Its namespace could still be read, its status not any more."""
    proc.add(10, v2("/box"), namespace="a", nspid=(10, 1))
    proc.add(11, v2("/box"), namespace="a", nspid=(11, 2))
    (proc.root / "11" / "status").unlink()
    proc.add(12, v2("/box/a"), namespace="a", nspid=(12, 3))
    assert cgroups_of(identifier, 12) == {"": "/box"}


def test_a_name_with_a_line_end_cannot_pretend_to_be_an_init(
    proc: FakeProc, identifier: Identifier
) -> None:
    """The kernel escapes a line feed in a task's name, and leaves a carriage return."""
    proc.add(10, v2("/box"), namespace="a", nspid=(10, 1))
    for pid, name in ((11, "\rNSpid:\t7 1"), (12, "\x0cNSpid:\t7 1"), (13, "\u2028NSpid:\t1")):
        proc.add(pid, v2("/box/liar"), namespace="a", nspid=(pid, pid), parent=10, comm=name)
        assert cgroups_of(identifier, pid) == {"": "/box"}


@pytest.mark.parametrize("parent", ["\u00b2", "9" * 5000, "-1", "0x1", "", "\u0661"])
def test_a_parent_that_is_no_pid_ends_the_search(
    proc: FakeProc, identifier: Identifier, parent: str
) -> None:
    """Digits of other scripts, and more than any pid has."""
    proc.add(10, v2("/job/task"), namespace="a", nspid=(10, 2))
    (proc.root / "10/status").write_text(f"PPid:\t{parent}\nNSpid:\t10\t2\n")
    assert cgroups_of(identifier, 10) == {"": "/job/task"}


def test_a_user_on_the_host_is_in_a_container_of_its_slice(
    proc: FakeProc, identifier: Identifier
) -> None:
    path = "/user.slice/user-1000.slice/session-3.scope"
    proc.add(10, v2(path))
    container = identifier.container_of(Pid(10))
    assert container is not None
    assert (container.runtime, container.id) == ("", path)


def test_v1_controllers_keep_their_own_paths(proc: FakeProc, identifier: Identifier) -> None:
    proc.add(
        10,
        f"6:memory:/docker/{A}/sub\n5:cpu,cpuacct:/docker/{A}\n"
        f"4:cpuset:/other/docker/{A}\n3:misc:/\n1:name=systemd:/docker/{A}/init.scope\n",
    )
    assert cgroups_of(identifier, 10) == {
        "memory": f"/docker/{A}",
        "cpu": f"/docker/{A}",
        "cpuacct": f"/docker/{A}",
        "cpuset": f"/other/docker/{A}",
        "misc": "/",
        "name=systemd": f"/docker/{A}",
    }


def test_on_a_hybrid_host_a_service_v2_path_is_not_the_containers(
    proc: FakeProc, identifier: Identifier
) -> None:
    """A v1 runtime leaves its containers in its own service's v2 cgroup: that tells of others."""
    proc.add(10, f"6:memory:/docker/{A}\n0::/system.slice/containerd.service\n")
    assert cgroups_of(identifier, 10) == {"memory": f"/docker/{A}", "": "/"}


def test_on_a_hybrid_host_the_v2_path_of_the_container_is_kept(
    proc: FakeProc, identifier: Identifier
) -> None:
    scope = f"/system.slice/docker-{A}.scope"
    proc.add(10, f"6:memory:{scope}\n0::{scope}/x\n")
    assert cgroups_of(identifier, 10) == {"memory": scope, "": scope}


def test_a_hierarchy_in_the_root_does_not_make_another_container() -> None:
    """A list of cgroups and a process of them agree on the key, and so on the record."""
    some = {"memory": CgroupPath("/docker/x")}
    more = {**some, "misc": CgroupPath("/"), "": CgroupPath("/")}
    one, other = container_of_paths(some), container_of_paths(more)
    assert one is not None
    assert other is not None
    assert one.key == other.key


def test_a_move_to_another_cgroup_is_seen(proc: FakeProc, identifier: Identifier) -> None:
    proc.add(10, v2(f"/docker/{A}"))
    assert cgroups_of(identifier, 10) == {"": f"/docker/{A}"}
    proc.move(10, v2(f"/docker/{B}"))
    assert cgroups_of(identifier, 10) == {"": f"/docker/{B}"}


def test_a_text_that_only_grows_is_seen(proc: FakeProc, identifier: Identifier) -> None:
    """What is looked at again is not cut to what was known."""
    proc.add(10, "0::/small")
    assert cgroups_of(identifier, 10) == {"": "/small"}
    proc.move(10, "0::/smaller")
    assert cgroups_of(identifier, 10) == {"": "/smaller"}


def test_a_move_of_the_init_is_seen(proc: FakeProc, identifier: Identifier) -> None:
    proc.add(10, v2("/box"), namespace="a", nspid=(10, 1))
    proc.add(11, v2("/box/a/b"), namespace="a", nspid=(11, 2), parent=10)
    assert cgroups_of(identifier, 11) == {"": "/box"}
    proc.move(10, v2("/box/a"))
    assert cgroups_of(identifier, 11) == {"": "/box/a"}


def test_an_answer_does_not_outlive_its_process(proc: FakeProc, identifier: Identifier) -> None:
    proc.add(10, v2(f"/docker/{A}"))
    assert identifier.container_of(Pid(10)) is not None
    proc.end(10)
    assert identifier.container_of(Pid(10)) is None
    assert open_below(proc.root) == []
    proc.add(10, v2(f"/docker/{B}"))
    assert cgroups_of(identifier, 10) == {"": f"/docker/{B}"}


def test_open_files_are_bounded(proc: FakeProc, identifier: Identifier) -> None:
    proc.add(1000, v2("/box"), namespace="a", nspid=(1000, 1))
    for pid in range(1, 40):
        proc.add(pid, v2(f"/box/{pid}"), namespace="a", nspid=(pid, pid + 1), parent=1000)
        assert cgroups_of(identifier, pid) == {"": "/box"}
        assert len(open_below(proc.root)) <= 8


def test_who_has_not_read_for_a_while_is_swept(proc: FakeProc, identifier: Identifier) -> None:
    for pid in (10, 11):
        proc.add(pid, v2(f"/docker/{A}"))
        identifier.container_of(Pid(pid))
    for _ in range(4):
        assert identifier.sweep()
        assert len(open_below(proc.root)) == 2
    identifier.container_of(Pid(11))
    assert [identifier.sweep() for _ in range(4)] == [True] * 4
    assert open_below(proc.root) == [f"{proc.root}/11/cgroup"]
    assert [identifier.sweep() for _ in range(4)] == [True] * 3 + [False]
    assert open_below(proc.root) == []


def test_another_text_of_the_same_length_is_seen(proc: FakeProc, identifier: Identifier) -> None:
    proc.add(10, v2(f"/docker/{A}"))
    assert cgroups_of(identifier, 10) == {"": f"/docker/{A}"}
    for container in (B, A):
        proc.move(10, v2(f"/docker/{container}"))
        assert cgroups_of(identifier, 10) == {"": f"/docker/{container}"}
    proc.move(10, v2(f"/docker/{A}/deeper"))
    assert cgroups_of(identifier, 10) == {"": f"/docker/{A}"}


def test_the_one_that_reads_no_more_makes_room_first(
    proc: FakeProc, identifier: Identifier
) -> None:
    pids = range(10, 18)
    for pid in (*pids, 18):
        proc.add(pid, v2(f"/docker/{A}"))
    for pid in pids:
        identifier.container_of(Pid(pid))
    for _ in range(4):
        identifier.sweep()
    for pid in (10, *pids[2:], 18):
        identifier.container_of(Pid(pid))
    assert open_below(proc.root) == [f"{proc.root}/{pid}/cgroup" for pid in (10, *pids[2:], 18)]


def test_each_new_reader_is_told_of_once(proc: FakeProc, identifier: Identifier) -> None:
    """Also one that has moved; not one on the host."""
    told: list[str] = []
    identifier.tell_of_new_readers(lambda container: told.append(container.id))
    for pid in (10, 11):
        proc.add(pid, v2(f"/docker/{A}"))
    proc.add(12, v2("/"))
    for _ in range(2):
        for pid in (10, 11, 12):
            identifier.container_of(Pid(pid))
    assert told == [A, A]
    proc.move(10, v2(f"/docker/{B}"))
    identifier.container_of(Pid(10))
    assert told == [A, A, B]


def test_a_text_means_the_same_container_as_long_as_anybody_has_it(
    proc: FakeProc, identifier: Identifier
) -> None:
    """No search for each of very many readers, and nothing kept for containers that have gone."""
    for pid in range(10, 30):
        proc.add(pid, v2(f"/docker/{A}"))
    first = identifier.container_of(Pid(10))
    assert all(identifier.container_of(Pid(pid)) is first for pid in range(11, 30))
    identifier.close()
    assert identifier.container_of(Pid(12)) is first
    identifier.close()
    assert first is not None
    gone = ref(first)
    del first
    assert gone() is None


@contextmanager
def no_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("namespace", ["host", "own"])
def test_who_cannot_be_looked_at_is_the_host_this_time(
    proc: FakeProc, identifier: Identifier, caplog: pytest.LogCaptureFixture, namespace: str
) -> None:
    """Out of descriptors: said in the log, and not remembered."""
    proc.add(10, v2("/box/deep"), namespace=namespace, nspid=(10, 1))
    with no_descriptors():
        assert identifier.container_of(Pid(10)) is None
    (line,) = (record.getMessage() for record in caplog.records)
    assert "Too many open files" in line
    assert cgroups_of(identifier, 10) == {"": "/box/deep"}


def test_a_reader_is_looked_at_with_what_the_budget_gives_up(
    proc: FakeProc, tmp_path: Path
) -> None:
    """Rather a file of a cgroup is opened again than a container given the host's files."""
    (tmp_path / "memory.max").write_text("1")
    budget = FileBudget()
    directory = CgroupDirectory(str(tmp_path), budget)
    directory.read("memory.max")
    proc.add(10, v2(f"/docker/{A}"))
    identifier = Identifier(proc.path, budget=budget)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fillers: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            fillers.extend(iter(lambda: os.open("/dev/null", os.O_RDONLY), -1))
        assert cgroups_of(identifier, 10) == {"": f"/docker/{A}"}
        assert len(budget) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in fillers:
            os.close(fd)
        identifier.close()
        directory.close()


def test_close_closes_all(proc: FakeProc) -> None:
    identifier = Identifier(proc.path)
    for pid in range(10, 20):
        proc.add(pid, v2(f"/docker/{A}"))
        identifier.container_of(Pid(pid))
    assert len(open_below(proc.root)) == 10
    identifier.close()
    assert open_below(proc.root) == []


def test_a_cgroup_text_of_many_long_paths_is_not_cut(
    proc: FakeProc, identifier: Identifier
) -> None:
    """14 hierarchies of nested machines exceed a page or two; the last line counts as well."""
    deep = f"/docker/{A}" + f"/{'x' * 250}" * 10
    lines = [f"{number}:c{number}:{deep}\n" for number in range(1, 15)]
    proc.add(10, "".join(lines) + f"0::{deep}\n")
    assert cgroups_of(identifier, 10) == {
        "": f"/docker/{A}",
        **{f"c{number}": f"/docker/{A}" for number in range(1, 15)},
    }


def test_this_process_has_an_answer_on_the_real_proc() -> None:
    identifier = Identifier()
    first = identifier.container_of(Pid(os.getpid()))
    assert identifier.container_of(Pid(os.getpid())) == first
    identifier.close()


@given(st.text())
def test_any_cgroup_text_has_an_answer(text: str) -> None:
    paths = parse_cgroups(text)
    named = container_by_name(paths)
    assert named == container_by_name(paths)
    if named is not None:
        for controller, path in named.cgroups.items():
            assert path == "/" or f"{paths[controller]}/".startswith(f"{path}/")
