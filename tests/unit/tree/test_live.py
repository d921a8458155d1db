"""Proves: names, attributes and contents of the live tree, for readers in different containers."""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from procscope.containers.identity import Identifier
from procscope.daemon.handlelayout import SlotClass
from procscope.daemon.handles import HandleStore
from procscope.fuse import permissions
from procscope.fuse.filesystem import Caller, DirEntry, Entry, Filesystem, StatFs
from procscope.fuse.wire import FOPEN_DIRECT_IO
from procscope.ids import FileHandle, NodeId, Pid
from procscope.observe.container import ContainerObserver
from procscope.observe.host import HostFiles
from procscope.observe.registry import VIEWS, View
from procscope.tree import live as module
from procscope.tree.live import LiveTree
from procscope.tree.nodeids import ROOT
from tests.unit.observe.fakehost import MEMINFO, FakeHost
from tests.unit.tree.fakesys import make_sys

HOST_PID, SMALL_PID, LARGE_PID, NOBODY = 5, 10, 20, 0
NS = 1_000_000_000
UNKNOWN = NodeId(1 << 61 | 12345)
SLOTS = (SlotClass(4096, 4), SlotClass(65536, 2))


NUMBERS = itertools.count(1)
"""Of requests: no two have the same."""


def caller(pid: int) -> Caller:
    return Caller(Pid(pid), uid=0, gid=0, unique=next(NUMBERS))


class Scene:
    """A host with two containers, and the tree that one worker serves."""

    def __init__(self, root: Path) -> None:
        self.host = FakeHost(root)
        make_sys(self.host.sys)
        self.host.add_container("small", limit_bytes=64 << 20, quota="100000 100000")
        self.host.add_container("large", limit_bytes=512 << 20, quota="300000 100000")
        self.host.proc.add(HOST_PID)
        self.host.proc.add(SMALL_PID, "0::/small\n")
        self.host.proc.add(LARGE_PID, "0::/large\n")
        self.contents = HandleStore.create(1, SLOTS)
        self.contents.adopt_part(0)
        self.renders = 0
        self.text = b""
        self.tree = self.make_tree({**VIEWS, "swaps": View("swaps", self._render)})

    def make_tree(
        self, views: Mapping[str, View], *, with_cpu_folder: bool = True, reuse_ns: int = 0
    ) -> LiveTree:
        self.observatory = self.host.observatory()
        self.identifier = Identifier(self.host.proc.path)
        return LiveTree(
            self.observatory,
            self.identifier,
            self.contents,
            views,
            with_cpu_folder=with_cpu_folder,
            reuse_ns=reuse_ns,
        )

    def _render(self, _host: HostFiles, _container: ContainerObserver) -> bytes:
        self.renders += 1
        return self.text or b"content %d\n" % self.renders

    def close(self) -> None:
        self.observatory.close()
        self.identifier.close()
        self.contents.close()

    def lookup(self, path: str, pid: int = SMALL_PID) -> Entry:
        nodeid, entry = ROOT, None
        for name in path.split("/"):
            entry = self.tree.lookup(caller(pid), nodeid, name.encode())
            nodeid = entry.attributes.nodeid
        assert entry is not None
        return entry

    def node(self, path: str, pid: int = SMALL_PID) -> NodeId:
        return self.lookup(path, pid).attributes.nodeid if path else ROOT

    def open(self, path: str, pid: int = SMALL_PID) -> tuple[NodeId, FileHandle]:
        nodeid = self.node(path, pid)
        return nodeid, self.tree.open(caller(pid), nodeid, 0)[0]

    def read(
        self, opened: tuple[NodeId, FileHandle], offset: int, size: int, pid: int = SMALL_PID
    ) -> bytes:
        return bytes(self.tree.read(Pid(pid), next(NUMBERS), *opened, offset, size))

    def read_once(self, path: str, pid: int) -> bytes:
        opened = self.open(path, pid)
        content = self.read(opened, 0, 1 << 17, pid)
        self.tree.release(*opened)
        return content

    def list(self, path: str, offset: int = 0, *, plus: bool = False) -> list[DirEntry]:
        nodeid = self.node(path)
        return list(self.tree.readdir(caller(SMALL_PID), nodeid, FileHandle(0), offset, plus))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.close()


def test_it_is_a_filesystem(scene: Scene) -> None:
    filesystem: Filesystem = scene.tree
    assert filesystem.statfs(caller(SMALL_PID), ROOT) == StatFs()
    filesystem.forget(ROOT, 1)


def test_every_view_is_there(scene: Scene) -> None:
    for name, view in VIEWS.items():
        attributes = scene.lookup(f"proc/{name}").attributes
        assert attributes.mode == stat.S_IFREG | view.mode
        assert (attributes.uid, attributes.gid) == (0, 0)
    for folder in ("proc", "proc/pressure", "sys", "sys/devices/system", "sys/devices/system/cpu"):
        assert stat.S_ISDIR(scene.lookup(folder).attributes.mode)


@pytest.mark.parametrize(
    "path", ["x", "proc/x", "proc/pressure/x", "sys/x", "proc/meminfo/x", "meminfo", "sys/.."]
)
def test_what_is_not_there_is_enoent(scene: Scene, path: str) -> None:
    with pytest.raises(FileNotFoundError):
        scene.lookup(path)


def test_the_folder_of_the_pinned_tree_has_one_id_for_all_times(scene: Scene) -> None:
    """With another one the kernel would take away what is mounted there."""
    assert b"self" not in {entry.name for entry in scene.list("")}
    scene.tree = LiveTree(
        scene.observatory, scene.identifier, scene.contents, VIEWS, with_self=True
    )
    assert scene.node("self", SMALL_PID) == scene.node("self", HOST_PID) == 0x200000E74AB22B20
    assert b"self" in {entry.name for entry in scene.list("")}


def test_below_the_pinned_tree_are_links_to_this_one(scene: Scene) -> None:
    """Whoever was told a path into the pinned tree finds the file also while there is none."""
    scene.tree = LiveTree(
        scene.observatory, scene.identifier, scene.contents, VIEWS, with_self=True
    )
    entries = {entry.name: entry.type for entry in scene.list("self")}
    assert entries.keys() == {b".", b"..", b"proc", b"sys"}
    link = stat.S_IFLNK >> 12
    assert entries[b"proc"] == entries[b"sys"] == link
    for name in ("proc", "sys"):
        nodeid = scene.node(f"self/{name}")
        assert stat.S_ISLNK(scene.tree.getattr(caller(HOST_PID), nodeid, None).mode)
        assert scene.tree.readlink(caller(HOST_PID), nodeid) == f"../{name}".encode()
        with pytest.raises(NotADirectoryError):
            scene.tree.readdir(caller(HOST_PID), nodeid, FileHandle(0), 0, plus=False)


def test_a_name_of_any_bytes_is_enoent(scene: Scene) -> None:
    for name in (b"\xff\xfe", b"\xed\xa0\x80", b"a" * 255, b"\n"):
        for parent in (ROOT, scene.node("proc"), scene.node("sys/devices/system/cpu"), UNKNOWN):
            with pytest.raises(FileNotFoundError):
                scene.tree.lookup(caller(SMALL_PID), parent, name)


def test_chosen_files_only(scene: Scene) -> None:
    scene.close()
    scene.contents = HandleStore.create(1, SLOTS)
    scene.tree = scene.make_tree({"meminfo": VIEWS["meminfo"]}, with_cpu_folder=False)
    assert [entry.name for entry in scene.list("")] == [b".", b"..", b"proc"]
    assert [entry.name for entry in scene.list("proc")] == [b".", b"..", b"meminfo"]
    with pytest.raises(FileNotFoundError):
        scene.lookup("sys")


@pytest.mark.parametrize("pid", [HOST_PID, SMALL_PID, LARGE_PID])
def test_the_size_is_that_of_the_readers_content(scene: Scene, pid: int) -> None:
    """The kernel takes a file of size 0 for empty in sendfile(2), without asking."""
    attributes = scene.lookup("proc/meminfo", pid).attributes
    assert attributes.size_bytes == len(scene.read_once("proc/meminfo", pid)) > 0


def test_the_size_of_an_open_file_is_that_of_its_content(scene: Scene) -> None:
    nodeid, fh = scene.open("proc/swaps")
    scene.text = b"a longer one\n" * 9
    scene.read_once("proc/swaps", SMALL_PID)
    assert scene.tree.getattr(caller(SMALL_PID), nodeid, fh).size_bytes == len("content 1\n")
    assert scene.tree.getattr(caller(SMALL_PID), nodeid, None).size_bytes == len(scene.text)


def test_the_reader_decides_the_view(scene: Scene) -> None:
    assert scene.read_once("proc/meminfo", HOST_PID) == MEMINFO.encode()
    assert scene.read_once("proc/meminfo", SMALL_PID).split()[:2] == [b"MemTotal:", b"65536"]
    assert scene.read_once("proc/meminfo", LARGE_PID).split()[:2] == [b"MemTotal:", b"524288"]
    assert scene.read_once("proc/meminfo", NOBODY) == MEMINFO.encode()


def test_the_cpu_folder_follows_the_reader(scene: Scene) -> None:
    online = "sys/devices/system/cpu/online"
    possible = "sys/devices/system/cpu/possible"
    assert scene.read_once(online, SMALL_PID) == b"0\n"
    assert scene.read_once(online, LARGE_PID) == b"0-2\n"
    assert scene.read_once(possible, HOST_PID) == b"0-7\n"
    assert stat.S_ISDIR(scene.lookup("sys/devices/system/cpu/cpu3", HOST_PID).attributes.mode)
    with pytest.raises(FileNotFoundError):
        scene.lookup("sys/devices/system/cpu/cpu3", LARGE_PID)
    assert scene.tree.readlink(
        caller(LARGE_PID), scene.node("sys/devices/system/cpu/cpu1/cpufreq", LARGE_PID)
    ) == (b"../cpufreq/policy0")


def test_content_is_fixed_when_the_file_is_opened(scene: Scene) -> None:
    scene.lookup("proc/swaps")
    scene.renders = 0
    opened = scene.open("proc/swaps")
    other = scene.open("proc/swaps")
    assert scene.read(opened, 0, 9) == b"content 1"
    assert scene.read(opened, 8, 99) == b"1\n"
    assert scene.read(other, 0, 99) == b"content 2\n"
    assert scene.read(opened, 10, 99) == b""
    assert scene.read(opened, 1 << 62, 99) == b""
    assert scene.renders == 2


@settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(size=st.integers(1, 5000))
def test_a_file_is_whole_whatever_sizes_it_is_read_in(scene: Scene, size: int) -> None:
    scene.text = b"".join(b"%06d\n" % number for number in range(700))
    opened = scene.open("proc/swaps")
    parts: list[bytes] = []
    while part := scene.read(opened, len(b"".join(parts)), size):
        parts.append(part)
    assert b"".join(parts) == scene.text
    scene.tree.release(*opened)


def test_reading_from_the_start_again_is_fresh(scene: Scene) -> None:
    scene.lookup("proc/swaps")
    scene.renders = 0
    opened = scene.open("proc/swaps")
    for number in range(1, 5):
        assert scene.read(opened, 0, 99) == b"content %d\n" % number
        assert scene.read(opened, 8, 99) == b"%d\n" % number


def test_a_first_read_elsewhere_does_not_spend_the_first_one(scene: Scene) -> None:
    scene.lookup("proc/swaps")
    scene.renders = 0
    opened = scene.open("proc/swaps")
    assert scene.read(opened, 8, 99) == b"1\n"
    assert scene.read(opened, 0, 99) == b"content 1\n"


def test_a_content_that_outgrows_its_room_is_fresh_and_whole(scene: Scene) -> None:
    """A program keeps a file open and reads it anew each second; the text grows by a digit."""
    scene.text = b"a" * SLOTS[0].size_bytes
    opened = scene.open("proc/swaps")
    assert scene.read(opened, 0, 9999) == scene.text
    for length in (SLOTS[0].size_bytes + 1, SLOTS[1].size_bytes * 2):
        scene.text = b"b" * length
        for _ in range(2):
            assert scene.read(opened, 0, 1 << 20) == scene.text
            assert scene.read(opened, 4000, 1 << 20) == scene.text[4000:]


def test_with_no_room_left_a_file_is_still_whole(scene: Scene) -> None:
    opened = [scene.open("proc/swaps") for _ in range(10)]
    assert opened[-1][1] == 0
    scene.text = b"the last\n"
    assert scene.read(opened[-1], 0, 99) == b"the last\n"
    assert scene.read(opened[-1], 4, 99) == b"last\n"
    for one in opened:
        scene.tree.release(*one)
    assert scene.contents.in_use() == 0


def test_files_are_opened_past_the_page_cache(scene: Scene) -> None:
    _, flags = scene.tree.open(caller(SMALL_PID), scene.node("proc/meminfo"), 0)
    assert flags & FOPEN_DIRECT_IO


def test_a_released_file_gives_its_room_back(scene: Scene) -> None:
    for _ in range(50):
        assert scene.read_once("proc/meminfo", SMALL_PID).startswith(b"MemTotal:")
    assert scene.contents.in_use() == 0


def test_folders_list_what_can_be_looked_up(scene: Scene) -> None:
    for path in ("", "proc", "proc/pressure", "sys", "sys/devices", "sys/devices/system"):
        whole = scene.list(path)
        assert [entry.name for entry in whole[:2]] == [b".", b".."]
        for entry in whole[2:]:
            found = scene.lookup(f"{path}/{os.fsdecode(entry.name)}".lstrip("/"))
            assert found.attributes.nodeid == entry.nodeid
            assert stat.S_IFMT(found.attributes.mode) == entry.type << 12
        for offset in range(len(whole) + 2):
            assert scene.list(path, offset) == whole[offset:]


def test_dots_lead_to_the_folders_themselves(scene: Scene) -> None:
    here, above = scene.list("proc/pressure")[:2]
    assert (here.nodeid, above.nodeid) == (scene.node("proc/pressure"), scene.node("proc"))
    assert [entry.nodeid for entry in scene.list("")[:2]] == [ROOT, ROOT]


def test_the_names_of_views_are_never_cached(scene: Scene) -> None:
    """A runtime's walk makes the new container known; a listing before must not prevent it."""
    for name in VIEWS:
        assert scene.lookup(f"proc/{name}").entry_valid_ns == 0
    for entry in (*scene.list("proc", plus=True), *scene.list("proc/pressure", plus=True)):
        if entry.entry is not None and stat.S_ISREG(entry.entry.attributes.mode):
            assert entry.entry.entry_valid_ns == 0, entry.name
    assert scene.lookup("proc").entry_valid_ns > 0
    assert scene.lookup("sys/devices/system/cpu").entry_valid_ns > 0


def test_a_listing_with_attributes_agrees_with_lookup(scene: Scene) -> None:
    for path in ("", "proc", "sys/devices/system", "sys/devices/system/cpu"):
        for entry in scene.list(path, plus=True)[2:]:
            assert entry.entry == scene.lookup(f"{path}/{os.fsdecode(entry.name)}".lstrip("/"))


def test_a_walk_makes_the_container_known(scene: Scene) -> None:
    assert scene.host.records.names() == ()
    scene.lookup("proc/meminfo", HOST_PID)
    assert scene.host.records.names() == ()
    scene.lookup("proc/meminfo", SMALL_PID)
    assert len(scene.host.records.names()) == 1


def test_unknown_nodes_are_stale(scene: Scene) -> None:
    for use in (
        lambda: scene.tree.getattr(caller(SMALL_PID), UNKNOWN, None),
        lambda: scene.tree.open(caller(SMALL_PID), UNKNOWN, 0),
        lambda: scene.tree.readdir(caller(SMALL_PID), UNKNOWN, FileHandle(0), 0, False),
    ):
        with pytest.raises(OSError, match="Stale") as caught:
            use()
        assert caught.value.errno == errno.ESTALE


def test_what_does_not_fit_the_node_is_refused(scene: Scene) -> None:
    file, folder = scene.node("proc/meminfo"), scene.node("proc")
    with pytest.raises(OSError, match="Not a directory"):
        scene.tree.readdir(caller(SMALL_PID), file, FileHandle(0), 0, False)
    for nodeid in (file, folder):
        with pytest.raises(OSError, match="Invalid"):
            scene.tree.readlink(caller(SMALL_PID), nodeid)


def test_modes_are_heeded(scene: Scene) -> None:
    meminfo, slabinfo = scene.node("proc/meminfo"), scene.node("proc/slabinfo")
    root = caller(SMALL_PID)
    other = root._replace(uid=1000, gid=1000)
    for who, nodeid in ((root, meminfo), (root, slabinfo), (other, meminfo)):
        scene.tree.access(who, nodeid, os.R_OK)
    assert scene.tree.open(other, meminfo, os.O_RDONLY)[0]
    with pytest.raises(PermissionError):
        scene.tree.access(other, meminfo, os.R_OK | os.W_OK)
    with pytest.raises(PermissionError):
        scene.tree.access(other, slabinfo, os.R_OK)
    with pytest.raises(PermissionError):
        scene.tree.open(other, slabinfo, os.O_RDONLY)
    scene.tree.access(root._replace(uid=permissions.HIDDEN_ID), slabinfo, os.R_OK)


def test_a_container_that_goes_while_its_file_is_open_reads_on(scene: Scene) -> None:
    opened = scene.open("proc/meminfo")
    first = scene.read(opened, 0, 20)
    scene.host.remove_container("small")
    assert first + scene.read(opened, 20, 1 << 17) != MEMINFO.encode()
    scene.host.proc.end(SMALL_PID)
    assert scene.read(opened, 0, 1 << 17) != b""


def test_of_two_views_that_move_together_none_tells_of_an_earlier_tick(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was rendered for `stat` in the last tick is older than what `uptime` tells by now."""
    scene.observatory.close()
    scene.identifier.close()
    views = {
        "stat": View("stat", scene._render, by_ticks=True),
        "swaps": View("swaps", scene._render),
    }
    scene.tree = scene.make_tree(views, with_cpu_folder=False, reuse_ns=60 * NS)
    since_tick_ns = 50 * NS
    monkeypatch.setattr(module, "NS_PER_TICK", 100 * NS)
    monkeypatch.setattr(module, "boottime_ns", lambda: 700 * NS + since_tick_ns)
    # One after the other: the renderings of two names may have the same place.
    by_ticks = scene.read_once("proc/stat", SMALL_PID)
    assert scene.read_once("proc/stat", SMALL_PID) == by_ticks
    since_tick_ns = 0
    assert scene.read_once("proc/stat", SMALL_PID) != by_ticks
    other = scene.read_once("proc/swaps", SMALL_PID)
    assert scene.read_once("proc/swaps", SMALL_PID) == other
