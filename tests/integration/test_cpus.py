"""Which CPUs a container sees, in every place that tells of them, and how their folder looks."""

from __future__ import annotations

import errno
import os
import stat as modes
from collections.abc import Callable
from pathlib import Path

import pytest

from procscope.ids import CpuId
from procscope.linux.cpulist import format_cpulist
from tests.integration import agents
from tests.integration.agents import Agent, agent
from tests.integration.cgroups import Group, container, new_id
from tests.integration.daemons import daemon
from tests.integration.files import CPU_FOLDER, ONLINE, cpu_list, proc, visible_everywhere
from tests.integration.waiting import fewer

LAST = ONLINE[-1]
SHARES = [
    (None, None, ONLINE),
    (0.5, None, ONLINE[:1]),
    (1, None, ONLINE[:1]),
    (1.5, None, ONLINE[:2]),
    (len(ONLINE) + 1, None, ONLINE),
    (None, ONLINE[-1:], ONLINE[-1:]),
    (None, ONLINE[-2:], ONLINE[-2:]),
    (1, ONLINE[-2:], ONLINE[-2:-1]),
    (2.5, ONLINE[1:], ONLINE[1:4]),
]


def assert_sees(mount: Path, reader: Agent, expected: tuple[int, ...]) -> None:
    for place, seen in visible_everywhere(mount, reader).items():
        assert seen == expected, place
    assert cpu_list(mount, "offline", reader) == ()


@pytest.mark.parametrize(("quota", "cpuset", "expected"), SHARES)
def test_every_place_tells_the_same_cpus(
    mount: Path, quota: float | None, cpuset: tuple[CpuId, ...] | None, expected: tuple[int, ...]
) -> None:
    with container(cpus=quota) as group:
        if cpuset:
            group.set_cpuset(format_cpulist(cpuset))
        with agent(group) as reader:
            assert_sees(mount, reader, expected)


def test_a_limit_above_the_container_counts(mount: Path) -> None:
    with (
        container(cpus=1, path=f"/pod-{new_id()[:8]}") as pod,
        pod.child(new_id()) as group,
        agent(group) as reader,
    ):
        group.set_cpus(1)
        assert_sees(mount, reader, ONLINE[:1])
        group.set_cpus(None)
        assert_sees(mount, reader, ONLINE[:1])


def test_a_changed_share_is_seen_at_once_and_in_every_place(mount: Path) -> None:
    """The view of the CPUs may be some milliseconds old, and is the same for all places then."""
    changes: list[tuple[Callable[[Group], None], tuple[int, ...]]] = [
        (lambda group: group.set_cpus(1), ONLINE[:1]),
        (lambda group: group.set_cpus(None), ONLINE),
        (lambda group: group.set_cpuset(str(LAST)), (LAST,)),
        (lambda group: group.set_cpuset(format_cpulist(ONLINE)), ONLINE),
    ]
    with container() as group, agent(group) as reader:
        for change, expected in changes * 3:
            change(group)
            reader.call(let_five_milliseconds_pass)
            assert_sees(mount, reader, expected)


def let_five_milliseconds_pass() -> None:
    """For longer than a worker keeps what it has found."""
    fd = os.open("/proc/uptime", os.O_RDONLY)
    before = float(os.pread(fd, 32, 0).split()[0])
    while float(os.pread(fd, 32, 0).split()[0]) < before + 0.02:
        os.sched_yield()
    os.close(fd)


def test_with_the_cpuset_as_count_the_quota_hides_none() -> None:
    with (
        daemon("--cpu-count", "cpuset") as served,
        container(cpus=0.5) as group,
        agent(group) as reader,
    ):
        assert_sees(served.mountpoint, reader, ONLINE)


def test_cpuinfo_counts_only_what_is_visible(mount: Path) -> None:
    with container(cpus=1) as group, agent(group) as reader:
        fields = [line.partition(":") for line in proc(mount, "cpuinfo", reader).splitlines()]
        values = {name.strip(): value.strip() for name, _, value in fields}
        for name in ("siblings", "cpu cores"):
            assert values.get(name, "1") == "1"


def names_below(top: str) -> list[str]:
    """Every path below `top`, relative to it, links not followed."""
    found = []
    for folder, folders, files in os.walk(top):
        found += [f"{folder}/{name}"[len(top) + 1 :] for name in (*folders, *files)]
    return sorted(found)


def test_only_the_folders_of_hidden_cpus_are_missing(mount: Path) -> None:
    folder = f"{mount}{CPU_FOLDER}"
    with container(cpuset=str(LAST)) as group, agent(group) as reader:
        ours = set(reader.call(names_below, folder))
    hidden = {f"cpu{cpu}" for cpu in ONLINE if cpu != LAST}
    expected = {path for path in names_below(str(CPU_FOLDER)) if path.split("/")[0] not in hidden}
    missing = {path for path in expected - ours if not path.startswith("cpufreq/")}
    assert not missing
    assert not ours - expected


def statuses(top: str) -> dict[str, tuple[int, int, int, str]]:
    found = {}
    for path in names_below(top):
        status = os.lstat(f"{top}/{path}")
        target = os.readlink(f"{top}/{path}") if modes.S_ISLNK(status.st_mode) else ""
        found[path] = (status.st_mode, status.st_uid, status.st_gid, target)
    return found


def test_modes_owners_and_links_are_the_hosts(mount: Path) -> None:
    folder = f"{mount}{CPU_FOLDER}"
    with container(cpuset=str(LAST)) as group, agent(group) as reader:
        ours = reader.call(statuses, folder)
    theirs = statuses(str(CPU_FOLDER))
    assert ours == {path: theirs[path] for path in ours}
    assert any(modes.S_ISLNK(status[0]) for status in ours.values())


def test_what_a_container_reads_below_is_the_hosts_but_for_lists_of_cpus(mount: Path) -> None:
    with container(cpuset=str(LAST)) as group, agent(group) as reader:
        path = f"cpu{LAST}/topology"
        for name in os.listdir(CPU_FOLDER / path):
            theirs = (CPU_FOLDER / path / name).read_text()
            ours = reader.call(agents.read, f"{mount}{CPU_FOLDER}/{path}/{name}").decode()
            if name.endswith("_list"):
                assert ours == f"{LAST}\n", name
            elif name.endswith(("_cpus", "_siblings")):
                assert int(ours.replace(",", ""), 16) == 1 << LAST, name
                assert len(ours) == len(theirs)
            else:
                assert ours == theirs, name


def test_files_of_hidden_cpus_are_not_there(mount: Path, host: Agent) -> None:
    first, other = ONLINE[0], LAST
    path = f"{mount}{CPU_FOLDER}/cpu{first}/topology/core_id"
    with container(cpuset=str(other)) as group, agent(group) as reader:
        assert host.call(agents.read, path)
        assert reader.call(agents.errno_of, os.stat, path) == errno.ENOENT
        assert reader.call(agents.errno_of, agents.read, path) == errno.ENOENT
        assert reader.call(agents.errno_of, os.stat, f"{mount}{CPU_FOLDER}/cpu{first}") == (
            errno.ENOENT
        )
        assert f"cpu{first}" not in reader.call(os.listdir, f"{mount}{CPU_FOLDER}")


def test_a_folder_that_was_entered_before_it_was_hidden_tells_nothing(mount: Path) -> None:
    first, other = ONLINE[0], LAST
    with container() as group, agent(group) as reader:
        reader.call(os.chdir, f"{mount}{CPU_FOLDER}/cpu{first}/topology")
        assert reader.call(agents.read, "core_id")
        group.set_cpuset(str(other))
        reader.call(let_five_milliseconds_pass)
        assert reader.call(agents.errno_of, agents.read, "core_id") == errno.ENOENT


def writable_files(top: str) -> list[str]:
    return [
        path
        for path in (f"{top}/{name}" for name in names_below(top))
        if modes.S_ISREG(os.lstat(path).st_mode) and os.lstat(path).st_mode & modes.S_IWUSR
    ]


def write_errors(top: str) -> dict[str, int]:
    return {path: agents.errno_of(os.open, path, os.O_WRONLY) for path in writable_files(top)}


def test_root_in_a_container_writes_to_none_of_it(mount: Path) -> None:
    """Else it could take the host's CPUs offline."""
    with container() as group, agent(group) as reader:
        errors = reader.call(write_errors, f"{mount}{CPU_FOLDER}")
    assert errors
    assert set(errors.values()) == {errno.EROFS}


def looks(folder: str, cpus: tuple[int, ...], times: int) -> list[int]:
    """How often each CPU's folder was there, by path and by listing, in so many looks."""
    counts = [0] * (2 * len(cpus))
    for _ in range(times):
        names = os.listdir(folder)
        for place, cpu in enumerate(cpus):
            counts[place] += os.path.exists(f"{folder}/cpu{cpu}/topology")
            counts[len(cpus) + place] += f"cpu{cpu}" in names
    return counts


def test_what_one_reader_has_looked_up_is_never_that_of_another(mount: Path, host: Agent) -> None:
    """The kernel's dentry cache belongs to all readers: names that some do not see are not kept."""
    folder = f"{mount}{CPU_FOLDER}"
    with (
        container(cpuset=str(ONLINE[0])) as first_group,
        container(cpuset=str(LAST)) as last_group,
        agent(first_group) as first,
        agent(last_group) as last,
    ):
        for _ in range(fewer(250, 25)):
            for reader, seen in (
                (host, (True, True)),
                (first, (True, False)),
                (last, (False, True)),
                (host, (True, True)),
            ):
                for cpu, expected in zip((ONLINE[0], LAST), seen, strict=True):
                    path = f"{folder}/cpu{cpu}/topology/core_id"
                    assert reader.call(os.path.exists, path) is expected
        readers = (host, first, last)
        times = fewer(1000, 100)
        for reader in readers:
            reader.send(looks, folder, (ONLINE[0], LAST), times)
        assert [reader.receive() for reader in readers] == [
            [times, times, times, times],
            [times, 0, times, 0],
            [0, times, 0, times],
        ]
