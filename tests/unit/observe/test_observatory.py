"""Proves: a reader gets the container's view or, whole and counted, the host's; never an error."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from procscope.cgroup.files import CgroupDirectory, CgroupGone, FileBudget
from procscope.containers.container import Container
from procscope.observe import observatory as module
from procscope.observe.container import ContainerObserver
from procscope.observe.host import LOOK_NS, MOVING_NS, HostFiles
from procscope.observe.observatory import Observatory
from procscope.observe.records import RecordStore
from procscope.observe.registry import VIEWS, View
from tests.unit.containers.fakeproc import open_below
from tests.unit.observe.fakehost import MEMINFO, FakeHost

MIB = 1 << 20


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


@pytest.fixture
def observatory(host: FakeHost) -> Iterator[Observatory]:
    observatory = host.observatory()
    yield observatory
    observatory.close()
    assert open_below(host.root) == []


def mem_total_kb(observatory: Observatory, container: Container) -> int:
    first = observatory.render(VIEWS["meminfo"], container).splitlines()[0]
    assert first.startswith(b"MemTotal:")
    return int(first.split()[1])


def failing(error: Exception, *, reaches_reader: bool = False) -> View:
    def render(_host: HostFiles, _container: ContainerObserver) -> bytes:
        raise error

    return View("meminfo", render, errors_reach_reader=reaches_reader)


def test_the_host_reads_the_hosts_bytes(observatory: Observatory) -> None:
    assert observatory.render(VIEWS["meminfo"], None) == MEMINFO.encode()


def test_what_the_host_has_not_nobody_reads(observatory: Observatory) -> None:
    with pytest.raises(FileNotFoundError):
        observatory.render(VIEWS["diskstats"], None)


def test_a_container_reads_its_limit(host: FakeHost, observatory: Observatory) -> None:
    assert mem_total_kb(observatory, host.add_container("c")) == 64 * 1024
    assert host.fallbacks == []


def test_a_changed_limit_shows_at_once(host: FakeHost, observatory: Observatory) -> None:
    container = host.add_container("c")
    assert mem_total_kb(observatory, container) == 64 * 1024
    assert mem_total_kb(observatory, container) == 64 * 1024
    (host.cgroups / "c" / "memory.max").write_text(f"{32 * MIB}\n")
    assert mem_total_kb(observatory, container) == 32 * 1024


def test_swap_that_the_host_is_given_shows(host: FakeHost, observatory: Observatory) -> None:
    """As long as the host has none, nobody asks how much of it the container may use."""
    container = host.add_container("c")
    for name, content in (("memory.swap.current", "4096\n"), ("memory.swap.max", "8192\n")):
        (host.cgroups / "c" / name).write_text(content)
    (host.root / "proc/swaps").write_text("Filename\t\t\t\tType\n")
    assert b"SwapTotal:             0 kB\n" in observatory.render(VIEWS["meminfo"], container)
    assert observatory.render(VIEWS["swaps"], container).count(b"\n") == 1
    with_swap = MEMINFO.replace("SwapTotal:             0", "SwapTotal:          1024")
    (host.root / "proc/meminfo").write_text(with_swap)
    time.sleep(2 * LOOK_NS / 1e9)
    assert b"SwapTotal:             8 kB\n" in observatory.render(VIEWS["meminfo"], container)
    assert observatory.render(VIEWS["swaps"], container).split()[-3:-1] == [b"8", b"4"]


def test_locked_memory_is_bounded_by_what_the_host_has_locked_now(
    host: FakeHost, observatory: Observatory
) -> None:
    container = host.add_container("c")
    (host.cgroups / "c" / "memory.stat").write_text("unevictable 8192\n")
    for locked_kb in (0, 4, 100):
        (host.root / "proc/meminfo").write_text(f"{MEMINFO}Mlocked: {locked_kb} kB\n")
        time.sleep(2 * MOVING_NS / 1e9)
        view = observatory.render(VIEWS["meminfo"], container)
        assert f"Mlocked:        {min(locked_kb, 8):8d} kB\n".encode() in view


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "broken"),
        CgroupGone("/c"),
        ValueError("no number"),
        KeyError("x"),
        IndexError(),
        ZeroDivisionError(),
        RecursionError(),
        UnicodeDecodeError("ascii", b"\xff", 0, 1, "x"),
        MemoryError(),
    ],
)
def test_any_error_gives_the_hosts_bytes_and_is_reported(
    host: FakeHost, observatory: Observatory, error: Exception
) -> None:
    container = host.add_container("c")
    assert observatory.render(failing(error), container) == MEMINFO.encode()
    (fallback,) = host.fallbacks
    assert (fallback.view, fallback.container, fallback.error) == ("meminfo", container, error)


def test_a_file_of_the_cgroup_with_garbage_does_not_reach_the_reader(
    host: FakeHost, observatory: Observatory
) -> None:
    container = host.add_container("c")
    for name in ("memory.max", "memory.current", "memory.stat", "cpu.max", "cpu.stat"):
        (host.cgroups / "c" / name).write_bytes(b"\xff\0garbage max 1e9 -5\n")
    for view in ("meminfo", "loadavg", "uptime"):
        assert observatory.render(VIEWS[view], container).endswith(b"\n")


def test_pressure_errors_are_the_readers(host: FakeHost, observatory: Observatory) -> None:
    """The host's pressure would tell of other containers."""
    container = host.add_container("c")
    with pytest.raises(FileNotFoundError):
        observatory.render(VIEWS["pressure/cpu"], container)
    with pytest.raises(OSError, match="off") as caught:
        observatory.render(
            failing(OSError(errno.EOPNOTSUPP, "off"), reaches_reader=True), container
        )
    assert caught.value.errno == errno.EOPNOTSUPP
    assert host.fallbacks == []
    (host.cgroups / "c" / "cpu.pressure").write_text("some avg10=1.00\n")
    assert observatory.render(VIEWS["pressure/cpu"], container) == b"some avg10=1.00\n"


def test_pressure_of_a_cgroup_that_is_gone_is_nobodys(
    host: FakeHost, observatory: Observatory
) -> None:
    container = host.add_container("c")
    host.remove_container("c")
    with pytest.raises(OSError, match="gone") as caught:
        observatory.render(VIEWS["pressure/cpu"], container)
    assert caught.value.errno == errno.EOPNOTSUPP
    assert [one.view for one in host.fallbacks] == ["pressure/cpu"]


def test_a_cgroup_that_is_gone_gives_the_hosts_bytes(
    host: FakeHost, observatory: Observatory
) -> None:
    container = host.add_container("c")
    assert mem_total_kb(observatory, container) == 64 * 1024
    host.remove_container("c")
    # The open files of a removed directory of a plain filesystem would still read.
    observatory._observers[container.key].cgroup.close()
    assert observatory.render(VIEWS["meminfo"], container) == MEMINFO.encode()
    assert isinstance(host.fallbacks[0].error, CgroupGone)


def test_a_cgroup_that_is_made_again_is_found_again(
    host: FakeHost, observatory: Observatory
) -> None:
    container = host.add_container("c")
    assert mem_total_kb(observatory, container) == 64 * 1024
    host.remake_container("c", limit_bytes=32 * MIB)
    observatory._observers[container.key].cgroup.close()
    assert mem_total_kb(observatory, container) == 32 * 1024
    assert host.fallbacks == []
    assert len(host.records.names()) == 2


def test_with_a_new_reader_a_cgroup_that_was_made_again_is_another_lifetime(
    host: FakeHost, observatory: Observatory
) -> None:
    """What was rendered for the former one is told apart by that."""
    container = host.add_container("c")
    assert observatory.known_lifetime(container) is None
    observatory.see_again(container)
    assert mem_total_kb(observatory, container) == 64 * 1024
    first = observatory.known_lifetime(container)
    assert first == observatory.lifetime(container)
    observatory.see_again(container)
    assert observatory.known_lifetime(container) == first
    host.remake_container("c", limit_bytes=32 * MIB)
    observatory.see_again(container)
    assert observatory.known_lifetime(container) is None
    assert mem_total_kb(observatory, container) == 32 * 1024
    assert observatory.known_lifetime(container) not in (None, first)


def test_visible_cpus_follow_quota_and_fall_back_to_the_host(
    host: FakeHost, observatory: Observatory
) -> None:
    container = host.add_container("c", quota="150000 100000")
    assert observatory.visible_cpus(container) == (0, 1)
    assert observatory.visible_cpus(None) == (0, 1, 2, 3)
    host.remove_container("c")
    observatory._forget(container.key)
    assert observatory.visible_cpus(container) == (0, 1, 2, 3)
    assert [one.view for one in host.fallbacks] == ["sys/devices/system/cpu"]


def test_tracking_makes_a_record_and_never_fails(host: FakeHost, observatory: Observatory) -> None:
    observatory.track(None)
    assert host.records.names() == ()
    container = host.add_container("c")
    observatory.track(container)
    assert len(host.records.names()) == 1
    host.remove_container("c")
    observatory._forget(container.key)
    observatory.track(container)
    assert [one.view for one in host.fallbacks] == ["the record"]


def test_a_container_that_was_not_read_since_the_last_sweep_is_given_up(
    host: FakeHost, observatory: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_OBSERVERS", 2)
    a, b, c, d = (host.add_container(name) for name in "abcd")
    for container in (a, b):
        mem_total_kb(observatory, container)
    observatory.sweep()
    for container in (a, c):
        mem_total_kb(observatory, container)
    assert list(observatory._observers) == [a.key, c.key]
    assert open_below(host.cgroups / "b") == []
    mem_total_kb(observatory, d)
    assert list(observatory._observers) == [c.key, d.key], "of equals the one that was made first"


def test_a_container_that_is_gone_unread_is_swept(host: FakeHost, observatory: Observatory) -> None:
    gone, other = host.add_container("gone"), host.add_container("other")
    mem_total_kb(observatory, gone)
    mem_total_kb(observatory, other)
    host.remove_container("gone")
    assert observatory.sweep()
    assert list(observatory._observers) == [other.key]
    assert open_below(host.cgroups / "gone") == []
    host.remove_container("other")
    host.records.remove(next(iter(host.records.names())))  # the sampler does so
    assert not observatory.sweep()
    assert open_below(host.root / "state") == []


def test_no_cgroup_is_looked_at_where_no_record_has_gone(
    host: FakeHost, observatory: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand containers that sleep cost nothing: the sampler looks at them."""
    container = host.add_container("c")
    mem_total_kb(observatory, container)
    assert observatory.sweep()
    with monkeypatch.context() as patched:
        patched.delattr(CgroupDirectory, "check")
        assert observatory.sweep()


def test_what_nobody_reads_is_closed_after_a_minute(
    host: FakeHost, observatory: Observatory
) -> None:
    unread, other = host.add_container("unread"), host.add_container("other")
    mem_total_kb(observatory, unread)
    for _ in range(13):
        mem_total_kb(observatory, other)
        assert list(observatory._observers) == [unread.key, other.key]
        assert observatory.sweep()
    assert list(observatory._observers) == [other.key]
    assert open_below(host.cgroups / "unread") == []
    assert mem_total_kb(observatory, unread) == 65536


def test_those_that_have_gone_are_few_however_fast_containers_come_and_go(
    host: FakeHost, observatory: Observatory
) -> None:
    """Without any sweep, beside some that stay: what is kept is bounded by those that are there."""
    stay = [host.add_container(f"stays{number}") for number in range(12)]
    for container in stay:
        mem_total_kb(observatory, container)
    most = 0
    for number in range(100):
        mem_total_kb(observatory, host.add_container(f"c{number}"))
        host.remove_container(f"c{number}")
        most = max(most, len(observatory._observers))
    assert most <= 2 * len(stay)
    assert {container.key for container in stay} <= observatory._observers.keys()
    assert observatory._observers.keys() == observatory._to_check.keys()


def test_a_cgroup_that_goes_while_it_is_opened_leaves_nothing_open(
    host: FakeHost, observatory: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = host.add_container("c")
    open_record = RecordStore.open

    def removed_meanwhile(store: RecordStore, name: str, budget: FileBudget) -> object:
        host.remove_container("c")
        return open_record(store, name, budget)

    monkeypatch.setattr(RecordStore, "open", removed_meanwhile)
    assert observatory.render(VIEWS["meminfo"], container) == MEMINFO.encode()
    assert open_below(host.root / "state") == []
