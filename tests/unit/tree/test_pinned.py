"""Proves: whose view each node of the pinned tree is, and when another content shows."""

from __future__ import annotations

import errno
import itertools
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.containers.identity import Identifier
from procscope.daemon.handlelayout import SlotClass
from procscope.daemon.handles import HandleStore
from procscope.daemon.pins import PinStore
from procscope.fuse.filesystem import Caller, Entry, Filesystem, StatFs
from procscope.fuse.replies import attr_out
from procscope.fuse.wire import fuse_attr_out
from procscope.ids import FileHandle, NodeId, Pid
from procscope.observe import host as of_host
from procscope.observe.boottime import NS_PER_TICK, boottime_ns
from procscope.observe.container import ContainerObserver
from procscope.observe.host import MOVING_NS, HostFiles
from procscope.observe.registry import VIEWS, View
from procscope.tree import copying
from procscope.tree.nodeids import ROOT
from procscope.tree.pinned import LIMITS_VALID_NS, MOVING_VALID_NS, PinnedTree
from procscope.tree.pinnedids import NUMBER_BITS, PinnedPaths, join, named_part, split
from procscope.tree.snapshots import Snapshots
from procscope.values import replace
from tests.unit.observe.fakehost import FakeHost
from tests.unit.tree.fakesys import make_sys

SMALL, LARGE = "ab" * 32, "cd" * 32
HOST_PID, SMALL_PID, LARGE_PID, SERVICE_PID = 5, 10, 20, 30
CPUINFO = "".join(f"processor\t: {cpu}\nflags\t\t: x\n\n" for cpu in range(4))
SLOTS = (SlotClass(4096, 8), SlotClass(65536, 2))
_CPUS = "sys/devices/system/cpu"
NUMBERS = itertools.count(1)


def caller(pid: int) -> Caller:
    return Caller(Pid(pid), uid=0, gid=0, unique=next(NUMBERS))


class Told(NamedTuple):
    """What matters of the attributes."""

    size_bytes: int
    mtime_ns: int
    valid_ns: int


class Clock:
    """What `tree.copying` takes for the time: it stands still, but for who sleeps."""

    def __init__(self) -> None:
        self.now_ns = time.monotonic_ns()
        self.slept_s: list[float] = []

    def monotonic_ns(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now_ns += round(seconds * 1e9)


class Scene:
    """A host with two containers and a service, and the tree."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.host = FakeHost(root / "host")
        make_sys(self.host.sys)
        (self.host.root / "proc/cpuinfo").write_text(CPUINFO)
        self.host.add_container(SMALL, limit_bytes=64 << 20, quota="100000 100000")
        self.host.add_container(LARGE, limit_bytes=512 << 20, quota="300000 100000")
        self.host.add_container("some.service", limit_bytes=64 << 20, quota="100000 100000")
        self.host.proc.add(HOST_PID)
        self.host.proc.add(SMALL_PID, f"0::/{SMALL}\n")
        self.host.proc.add(LARGE_PID, f"0::/{LARGE}\n")
        self.host.proc.add(SERVICE_PID, "0::/some.service\n")
        self.contents = HandleStore.create(1, SLOTS)
        self.outsiders = 0
        self.clock = Clock()
        self.begin()

    def begin(self, views: Mapping[str, View] = VIEWS) -> None:
        """Be a new worker on the same memory and folders."""
        self.contents.adopt_part(0)
        self.observatory = self.host.observatory()
        self.identifier = Identifier(self.host.proc.path)
        self.tree = PinnedTree(
            self.observatory,
            self.identifier,
            PinStore(str(self.root / "pins"), str(self.root / "records")),
            self.contents,
            views,
            on_outsider=self._count,
        )

    def _count(self, pid: Pid) -> None:
        assert pid in (HOST_PID, SERVICE_PID, 0, 99)
        self.outsiders += 1

    def handle(self, nodeid: NodeId) -> FileHandle:
        """Return the handle of what is kept of a node."""
        return self.contents.kept()[nodeid]

    def add_small_pid(self) -> None:
        """SMALL has its process, an old one unless said otherwise."""
        (self.host.cgroups / SMALL / "cgroup.procs").write_text(f"{SMALL_PID}\n")

    def set_quota(self, quota: int) -> None:
        """Give SMALL another quota, which is seen at once."""
        (self.host.cgroups / SMALL / "cpu.max").write_text(f"{quota} 100000\n")
        self.observatory.close()

    def be_quiet(self) -> None:
        """Nobody reads, until a new size may be told."""
        self.clock.now_ns += copying.QUIET_NS

    def close(self) -> None:
        self.tree.close()
        self.contents.close()

    def link(self, name: str, pid: int) -> str:
        nodeid = self.tree.lookup(caller(pid), ROOT, name.encode()).attributes.nodeid
        return self.tree.readlink(caller(pid), nodeid).decode()

    def lookup(self, path: str, owner: int = SMALL_PID, pid: int | None = None) -> Entry:
        """Walk as `pid` to what `owner` finds at `path`."""
        first, _, rest = path.partition("/")
        nodeid, entry = ROOT, None
        for name in [*self.link(first, owner).split("/"), *filter(None, rest.split("/"))]:
            entry = self.tree.lookup(caller(pid or owner), nodeid, name.encode())
            nodeid = entry.attributes.nodeid
        assert entry is not None
        return entry

    def node(self, path: str, owner: int = SMALL_PID) -> NodeId:
        return self.lookup(path, owner).attributes.nodeid

    def told(self, nodeid: NodeId, pid: int = SMALL_PID) -> Told:
        """Ask for attributes as the kernel does: the short way first."""
        known = self.tree.known(nodeid)
        packed = known or attr_out(self.tree.getattr(caller(pid), nodeid, None))
        found = fuse_attr_out.unpack(packed)
        assert found["attr.ino"] == nodeid
        return Told(
            found["attr.size"],
            found["attr.mtime"] * 1_000_000_000 + found["attr.mtimensec"],
            found["attr_valid"] * 1_000_000_000 + found["attr_valid_nsec"],
        )

    def read(self, nodeid: NodeId, pid: int) -> bytes:
        return bytes(self.tree.read(Pid(pid), next(NUMBERS), nodeid, FileHandle(0), 0, 1 << 20))


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    monkeypatch.setattr(copying, "time", scene.clock)
    yield scene
    scene.close()


def total_kb(meminfo: bytes) -> int:
    return int(meminfo.split()[1])


def test_it_is_a_filesystem(scene: Scene) -> None:
    filesystem: Filesystem = scene.tree
    assert filesystem.statfs(caller(SMALL_PID), ROOT) == StatFs()


def test_each_container_is_led_into_a_folder_of_its_own(scene: Scene) -> None:
    small, large = scene.link("proc", SMALL_PID), scene.link("proc", LARGE_PID)
    assert small != large
    assert scene.link("sys", SMALL_PID) == small.replace("/proc", "/sys")
    assert scene.link("proc", SMALL_PID) == small
    assert scene.outsiders == 0


@pytest.mark.parametrize("pid", [HOST_PID, SERVICE_PID, 0, 99])
def test_who_is_in_no_container_is_led_to_the_live_tree(scene: Scene, pid: int) -> None:
    assert scene.link("proc", pid) == "../proc"
    assert scene.link("sys", pid) == "../sys"
    assert scene.outsiders == 2


def test_a_node_is_of_the_container_that_found_it_whoever_reads(scene: Scene) -> None:
    for owner, kb in ((SMALL_PID, 64 << 10), (LARGE_PID, 512 << 10)):
        node = scene.node("proc/meminfo", owner)
        for reader in (SMALL_PID, LARGE_PID, HOST_PID, 0):
            scene.tree.getattr(caller(reader), node, None)
            assert total_kb(scene.read(node, reader)) == kb


def test_a_name_is_the_same_node_whoever_asks(scene: Scene) -> None:
    for path in ("proc/meminfo", "sys/devices/system/cpu/online"):
        ids = {scene.lookup(path, SMALL_PID, pid).attributes.nodeid for pid in (10, 20, 5)}
        assert len(ids) == 1


def test_times_to_live(scene: Scene) -> None:
    scene.add_small_pid()
    for path, valid_ns in (
        ("proc/cpuinfo", LIMITS_VALID_NS),
        ("proc/meminfo", MOVING_VALID_NS),
        ("sys/devices/system/cpu/online", LIMITS_VALID_NS),
    ):
        assert scene.lookup(path).attributes.valid_ns == valid_ns


def test_of_a_container_that_is_being_started_the_kernel_keeps_nothing(scene: Scene) -> None:
    """Its runtime sets the limits after it has made the mounts."""
    scene.host.proc.end(SMALL_PID)
    now_ticks = boottime_ns() // NS_PER_TICK
    scene.host.proc.add(SMALL_PID, f"0::/{SMALL}\n", start_ticks=now_ticks)
    scene.add_small_pid()
    for path in ("proc/cpuinfo", "proc/meminfo", "sys/devices/system/cpu/online"):
        assert scene.lookup(path).attributes.valid_ns == 0
    assert scene.lookup("sys/devices/system/cpu/cpu0").entry_valid_ns == 0


def test_size_and_time_of_change_tell_of_another_content(scene: Scene) -> None:
    node = scene.node("proc/cpuinfo")
    first = scene.tree.getattr(caller(SMALL_PID), node, None)
    assert first.size_bytes == len(scene.read(node, SMALL_PID))
    assert scene.tree.getattr(caller(SMALL_PID), node, None) == first
    before = scene.read(node, SMALL_PID)
    scene.set_quota(200000)
    assert scene.read(node, SMALL_PID) == before, "a READ changes nothing"
    second = scene.tree.getattr(caller(SMALL_PID), node, None)
    assert second.mtime_ns > first.mtime_ns
    assert second.size_bytes == len(scene.read(node, SMALL_PID)) > first.size_bytes


@pytest.mark.parametrize("is_read", [False, True])
def test_a_new_size_waits_until_nobody_can_be_copying(scene: Scene, is_read: bool) -> None:
    """Or the end of his would be zeros: the kernel copies up to the size it has by then."""
    scene.add_small_pid()
    node = scene.node("proc/cpuinfo")
    first = scene.told(node)
    if is_read:
        scene.be_quiet()
        scene.read(node, SMALL_PID)
    scene.set_quota(200000)
    scene.clock.now_ns += copying.QUIET_NS - 1
    assert scene.told(node, LARGE_PID) == first._replace(valid_ns=copying.QUIET_NS)
    assert scene.read(node, LARGE_PID).count(b"processor") == 1, "all is of one moment"
    scene.be_quiet()
    second = scene.told(node)
    assert second.size_bytes == len(scene.read(node, SMALL_PID)) > first.size_bytes
    assert second.valid_ns == LIMITS_VALID_NS


@pytest.mark.parametrize("pause_ns", [1_000_000, 15_000_000])
def test_a_new_size_shows_where_reads_go_on_and_on(scene: Scene, pause_ns: int) -> None:
    scene.add_small_pid()
    node = scene.node("proc/cpuinfo")
    for quota in (200000, 300000, 100000):
        before = scene.told(node)
        scene.read(node, SMALL_PID)
        scene.set_quota(quota)
        waited_ns = 0
        while scene.told(node).size_bytes == before.size_bytes:
            scene.read(node, SMALL_PID)
            scene.clock.now_ns += pause_ns
            waited_ns += pause_ns
        assert copying.QUIET_NS <= waited_ns < copying.AT_MOST_NS + pause_ns


def test_that_a_size_waited_long_ago_is_forgotten(scene: Scene) -> None:
    scene.add_small_pid()
    node = scene.node("proc/cpuinfo")
    first = scene.told(node)
    for quota in (200000, 300000):
        scene.read(node, SMALL_PID)
        scene.set_quota(quota)
        assert scene.told(node).size_bytes == first.size_bytes
        scene.clock.now_ns += 10 * copying.AT_MOST_NS
        scene.tree.sweep()
    assert scene.told(node).size_bytes > first.size_bytes


def test_a_content_of_the_same_size_waits_for_nobody(scene: Scene) -> None:
    scene.add_small_pid()
    node = scene.node("proc/meminfo")
    first = scene.told(node)
    scene.read(node, SMALL_PID)
    (scene.host.cgroups / SMALL / "memory.max").write_text(f"{32 << 20}\n")
    scene.observatory.close()
    second = scene.told(node)
    assert second.size_bytes == first.size_bytes
    assert second.mtime_ns > first.mtime_ns


def test_of_a_container_that_is_being_started_a_new_size_waits_for_nobody(scene: Scene) -> None:
    """A program that counts its CPUs at its start does so once."""
    scene.host.proc.end(SMALL_PID)
    now_ticks = boottime_ns() // NS_PER_TICK
    scene.host.proc.add(SMALL_PID, f"0::/{SMALL}\n", start_ticks=now_ticks)
    scene.add_small_pid()
    node = scene.node("proc/cpuinfo")
    first = scene.told(node)
    scene.read(node, SMALL_PID)
    scene.set_quota(200000)
    assert scene.told(node).size_bytes > first.size_bytes


@pytest.mark.parametrize(
    ("after_ns", "next_pid", "slept_s"),
    [
        (1_000_000, LARGE_PID, [0.009]),
        (8_000_000, HOST_PID, [0.002]),
        (10_000_000, LARGE_PID, []),
        (0, SMALL_PID, []),
    ],
)
def test_who_asks_next_waits_until_the_new_size_has_arrived(
    scene: Scene, after_ns: int, next_pid: int, slept_s: list[float]
) -> None:
    """Or he would copy from the old page while the first one's thread is about to drop it."""
    scene.add_small_pid()
    node = scene.node("proc/cpuinfo")
    before = scene.told(node)
    scene.set_quota(200000)
    scene.be_quiet()
    after = scene.told(node)
    assert after.size_bytes > before.size_bytes
    scene.clock.now_ns += after_ns
    for _ in range(3):
        assert scene.told(node, next_pid) == after
    assert scene.clock.slept_s == pytest.approx(slept_s)


def test_of_whom_no_pid_is_known_each_is_another(scene: Scene) -> None:
    told = copying.Copying()
    node = NodeId(7)
    told.tell_new_size(node, Pid(0))
    told.let_arrive(node, Pid(0))
    assert scene.clock.slept_s == pytest.approx([copying.ARRIVING_NS / 1e9])


def test_a_new_worker_gives_out_what_the_last_one_had_begun(scene: Scene) -> None:
    nodes = [scene.node(path) for path in ("proc/meminfo", "proc/cpuinfo", _CPUS)]
    before = [(scene.tree.getattr(caller(10), n, None), n) for n in nodes[:2]]
    contents = [scene.read(node, SMALL_PID) for node in nodes[:2]]
    scene.tree.close()
    scene.begin()
    assert [scene.read(node, SMALL_PID) for node in nodes[:2]] == contents
    assert scene.tree.getattr(caller(10), nodes[1], None).mtime_ns == before[1][0].mtime_ns
    assert stat.S_ISDIR(scene.tree.getattr(caller(10), nodes[2], None).mode)


def test_once_the_container_has_gone_the_reader_gets_its_own(scene: Scene) -> None:
    node = scene.node("proc/meminfo")
    for path in (scene.root / "pins").iterdir():
        path.unlink()
    scene.tree.close()
    scene.begin()
    for pid, kb in ((LARGE_PID, 512 << 10), (SMALL_PID, 64 << 10)):
        attributes = scene.tree.getattr(caller(pid), node, None)
        assert attributes.valid_ns == 0
        assert total_kb(scene.read(node, pid)) == kb


def test_what_is_not_there_is_enoent(scene: Scene) -> None:
    name = scene.link("proc", SMALL_PID).partition("/")[0]
    for wrong in (b"x", b"00000", name[:-1].encode() + b"x", name.encode() + b"0", b"\xff"):
        with pytest.raises(FileNotFoundError):
            scene.tree.lookup(caller(SMALL_PID), ROOT, wrong)
    for path in ("proc/x", "proc/pressure", "sys/x", "sys/devices/system/cpu/cpu2"):
        with pytest.raises(FileNotFoundError):
            scene.lookup(path)


def test_the_root_lists_the_links_alone(scene: Scene) -> None:
    scene.link("proc", SMALL_PID)
    found = scene.tree.readdir(caller(LARGE_PID), ROOT, FileHandle(0), 0, plus=False)
    assert [entry.name for entry in found] == [b".", b"..", b"proc", b"sys"]


def test_folders_list_what_their_container_sees(scene: Scene) -> None:
    for owner, cpus in ((SMALL_PID, 1), (LARGE_PID, 3)):
        node = scene.node("sys/devices/system/cpu", owner)
        for pid in (SMALL_PID, LARGE_PID, HOST_PID):
            found = scene.tree.readdir(caller(pid), node, FileHandle(0), 0, plus=False)
            names = {entry.name.decode() for entry in found}
            assert {f"cpu{cpu}" for cpu in range(cpus)} <= names
            assert f"cpu{cpus}" not in names


@pytest.mark.parametrize("nodeid", [NodeId(4), NodeId(1 << 61), NodeId(1 << 63 | 12345)])
def test_an_unknown_node_is_stale(scene: Scene, nodeid: NodeId) -> None:
    with pytest.raises(OSError) as caught:
        scene.tree.getattr(caller(10), nodeid, None)
    assert caught.value.errno == errno.ESTALE
    with pytest.raises(OSError) as caught:
        list(scene.tree.readdir(caller(10), nodeid, FileHandle(0), 0, plus=False))
    assert caught.value.errno in (errno.ESTALE, errno.ENOTDIR)


@given(st.integers(0, (1 << NUMBER_BITS) - 1), st.text(st.characters(codec="utf-8"), max_size=20))
def test_a_node_leads_back_to_its_container(number: int, path: str) -> None:
    for part in (named_part(path), PinnedPaths("/nowhere").nodeid(path)):
        nodeid = join(number, part)
        assert 0 < nodeid < 1 << 64
        assert split(nodeid) == (number, part)


@pytest.mark.parametrize(
    "path",
    [
        *("", "online", "cpu0", "cpu8191/topology/core_id"),
        *("cpufreq/policy0", "cpufreq/policy0/related_cpus", "cpufreq/policy8191/x"),
        *("cpufreq/policy99999/x", "cpufreq/policyx", "cpufreq"),
    ],
)
def test_a_path_below_the_cpus_is_found_again(tmp_path: Path, path: str) -> None:
    target = tmp_path / path
    target.parent.mkdir(parents=True, exist_ok=True)
    if path:
        target.touch()
    nodeid = PinnedPaths(str(tmp_path)).nodeid(path)
    assert PinnedPaths(str(tmp_path)).path(nodeid) == path
    wanted = {"cpu0": 0, "cpu8191": 8191}.get(path.partition("/")[0])
    assert PinnedPaths(str(tmp_path)).cpu(nodeid) == wanted


def test_where_there_is_no_room_the_oldest_goes() -> None:
    store = HandleStore.create(1, (SlotClass(16, 3),))
    store.adopt_part(0)
    snapshots = Snapshots(store)
    for node in range(1, 10):
        snapshots.update(NodeId(node), b"%d" % node)
    assert [node for node in range(1, 10) if snapshots.get(NodeId(node))] == [7, 8, 9]
    assert snapshots.update(NodeId(20), bytes(100)).content == bytes(100)
    assert snapshots.get(NodeId(20)) is None
    assert store.in_use() == 3
    for node in (7, 8, 9):
        snapshots.forget(NodeId(node))
    assert store.in_use() == 0
    store.close()


class Counting:
    """`cpuinfo`, and how often it was rendered."""

    def __init__(self) -> None:
        self.rendered = 0
        self.error: Exception | None = None
        self.view = replace(VIEWS["cpuinfo"], render=self._render)

    def _render(self, host: HostFiles, container: ContainerObserver) -> bytes:
        self.rendered += 1
        if self.error is not None:
            raise self.error
        return VIEWS["cpuinfo"].render(host, container)


@pytest.fixture
def counting(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Counting:
    """The tree's `cpuinfo` is counted, SMALL has started, and the host's files never grow old."""
    monkeypatch.setattr(of_host, "STEADY_NS", 3600 * 1_000_000_000)
    scene.add_small_pid()
    counting = Counting()
    scene.tree.close()
    scene.begin({"cpuinfo": counting.view})
    return counting


def test_what_follows_the_limits_is_rendered_again_only_where_they_have_changed(
    scene: Scene, counting: Counting
) -> None:
    node = scene.node("proc/cpuinfo")
    first = scene.told(node)
    assert [scene.told(node, pid) for pid in (10, 20, 5)] == [first] * 3
    assert counting.rendered == 1
    (scene.host.cgroups / SMALL / "cpu.max").write_text("200000 100000\n")
    time.sleep(2 * MOVING_NS / 1e9)
    scene.be_quiet()
    second = scene.told(node)
    assert second.size_bytes == len(scene.read(node, SMALL_PID)) > first.size_bytes
    assert second.mtime_ns > first.mtime_ns
    # Who is the next to ask may have to wait: of a new size there is no short way yet.
    assert [scene.told(node, pid) for pid in (10, 20, 5)] == [second] * 3
    assert counting.rendered == 3


@pytest.mark.parametrize("file", ["online", "present", "possible"])
def test_a_list_of_cpus_is_new_at_once_where_another_file_has_seen_the_limit(
    scene: Scene, counting: Counting, file: str
) -> None:
    nodes = [scene.node(path) for path in (f"{_CPUS}/{file}", "proc/cpuinfo")]
    before = [scene.told(node) for node in nodes]
    (scene.host.cgroups / SMALL / "cpu.max").write_text("300000 100000\n")
    time.sleep(2 * MOVING_NS / 1e9)
    scene.be_quiet()
    for node, old in zip(reversed(nodes), reversed(before), strict=True):
        assert scene.told(node).size_bytes > old.size_bytes
    assert scene.read(nodes[0], SMALL_PID) == b"0-2\n"
    assert counting.rendered == 2


def test_the_host_is_looked_at_again_in_time(
    scene: Scene, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = scene.node("proc/cpuinfo")
    before = scene.told(node)
    (scene.host.root / "proc/cpuinfo").write_text(CPUINFO.replace("x", "xx"))
    assert scene.told(node) == before
    monkeypatch.setattr(of_host, "STEADY_NS", 0)
    scene.tree.sweep()
    scene.be_quiet()
    assert scene.told(node).size_bytes > before.size_bytes
    (scene.host.root / "proc/cpuinfo").write_text(CPUINFO)
    scene.be_quiet()
    assert scene.told(node).size_bytes == before.size_bytes
    assert counting.rendered == 3


def test_of_another_lifetime_nothing_is_told_again(scene: Scene, counting: Counting) -> None:
    node = scene.node("proc/cpuinfo")
    before = scene.told(node)
    assert before.valid_ns == LIMITS_VALID_NS
    scene.host.remake_container(SMALL, limit_bytes=1 << 20)
    # The open files of a removed directory of a plain filesystem would still read.
    scene.observatory.close()
    assert scene.told(node, LARGE_PID).valid_ns == 0
    assert scene.read(node, LARGE_PID).count(b"processor") == 3
    assert counting.rendered == 2


def test_a_container_that_is_being_started_is_looked_at_each_time(
    scene: Scene, counting: Counting
) -> None:
    scene.host.proc.end(SMALL_PID)
    now_ticks = boottime_ns() // NS_PER_TICK
    scene.host.proc.add(SMALL_PID, f"0::/{SMALL}\n", start_ticks=now_ticks)
    nodes = [scene.node(path) for path in ("proc/cpuinfo", f"{_CPUS}/online")]
    for number in range(2, 5):
        for node in nodes:
            assert scene.told(node).valid_ns == 0
        assert counting.rendered == number


def test_what_is_the_hosts_is_counted_each_time_and_not_kept(
    scene: Scene, counting: Counting
) -> None:
    counting.error = ValueError("no number")
    node = scene.node("proc/cpuinfo")
    for number in range(2, 5):
        found = scene.told(node)
        assert (found.size_bytes, found.valid_ns) == (len(CPUINFO), 0)
        assert len(scene.host.fallbacks) == number
    counting.error = None
    scene.be_quiet()
    assert scene.told(node).valid_ns == LIMITS_VALID_NS


def test_a_content_that_was_dropped_is_told_of_anew(scene: Scene, counting: Counting) -> None:
    node = scene.node("proc/cpuinfo")
    before = scene.told(node)
    for forget in (scene.tree.forget, lambda node, _: scene.contents.release(scene.handle(node))):
        forget(node, 1)
        content = scene.read(node, SMALL_PID)
        after = scene.told(node)
        assert after.mtime_ns > before.mtime_ns
        assert after.size_bytes == len(content)
        before = after
