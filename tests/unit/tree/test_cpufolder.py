"""Proves: the CPU folder shows the visible CPUs, keeps modes and links, and hides the others."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from pathlib import Path

import pytest

from procscope.fuse.filesystem import DirEntry
from procscope.ids import CpuId, NodeId
from procscope.tree.cpufolder import CpuFolder
from procscope.tree.nodeids import SysfsPaths
from tests.unit.tree.fakesys import HOST, make_sys

FIRST = (CpuId(0),)
PAIR = (CpuId(0), CpuId(1))
SECOND_PAIR = (CpuId(2), CpuId(3))


@pytest.fixture
def folder(tmp_path: Path) -> CpuFolder:
    make_sys(tmp_path)
    return CpuFolder(str(tmp_path))


def walk(folder: CpuFolder, path: str, visible: Collection[CpuId]) -> NodeId:
    nodeid = folder.root
    for name in path.split("/") if path else ():
        nodeid = folder.lookup(nodeid, name, visible).attributes.nodeid
    return nodeid


def read(folder: CpuFolder, path: str, visible: Collection[CpuId]) -> bytes:
    return folder.read(walk(folder, path, visible), visible, whole=False)


def entries(
    folder: CpuFolder, path: str, visible: Collection[CpuId], offset: int = 0, *, plus: bool = False
) -> list[DirEntry]:
    return list(folder.list(walk(folder, path, visible), visible, offset, plus=plus))


def names(found: list[DirEntry]) -> list[str]:
    return [os.fsdecode(entry.name) for entry in found]


def test_only_visible_cpus_have_a_folder(folder: CpuFolder) -> None:
    shown = names(entries(folder, "", SECOND_PAIR))
    assert shown[:2] == [".", ".."]
    assert [name for name in shown if name.startswith("cpu") and name[3:].isdigit()] == [
        "cpu2",
        "cpu3",
    ]
    assert {"online", "vulnerabilities", "cpufreq", "secret"} <= set(shown)


def test_what_is_listed_can_be_looked_up_and_the_other_way_round(folder: CpuFolder) -> None:
    for visible in (FIRST, PAIR, SECOND_PAIR, HOST):
        for path in ("", "cpufreq", f"cpu{visible[0]}", f"cpu{visible[0]}/topology"):
            parent = walk(folder, path, visible)
            for entry in entries(folder, path, visible)[2:]:
                found = folder.lookup(parent, os.fsdecode(entry.name), visible)
                assert found.attributes.nodeid == entry.nodeid
                assert stat.S_IFMT(found.attributes.mode) == entry.type << 12


def test_a_folder_that_is_read_as_a_file_leaves_no_descriptor_open(folder: CpuFolder) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(IsADirectoryError):
        read(folder, "cpu0/topology", FIRST)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("name", ["cpu2", "cpu3", "cpu4", "nothing", ".", "..", "cpu0/online"])
def test_what_is_not_there_cannot_be_looked_up(folder: CpuFolder, name: str) -> None:
    with pytest.raises(FileNotFoundError):
        folder.lookup(folder.root, name, PAIR)


def test_a_hidden_cpus_node_is_not_there_for_another_reader(folder: CpuFolder) -> None:
    """Its number may be known from a reader who sees it."""
    core_id = walk(folder, "cpu3/topology/core_id", HOST)
    link = walk(folder, "cpu3/cpufreq", HOST)
    for use in (
        lambda: folder.read(core_id, PAIR, whole=False),
        lambda: folder.attributes(core_id, PAIR),
        lambda: folder.readlink(link, PAIR),
        lambda: list(folder.list(walk(folder, "cpu3", HOST), PAIR, 0, plus=False)),
    ):
        with pytest.raises(FileNotFoundError):
            use()


def test_a_policy_is_there_with_its_cpus(folder: CpuFolder) -> None:
    assert names(entries(folder, "cpufreq", FIRST))[2:] == ["policy0"]
    assert names(entries(folder, "cpufreq", SECOND_PAIR))[2:] == ["policy2"]
    assert names(entries(folder, "cpufreq", HOST))[2:] == ["policy0", "policy2"]
    with pytest.raises(FileNotFoundError):
        walk(folder, "cpufreq/policy2/scaling_cur_freq", FIRST)


def test_lists_and_masks_are_cut(folder: CpuFolder) -> None:
    visible = (CpuId(1), CpuId(2))
    assert read(folder, "online", visible) == b"1-2\n"
    assert read(folder, "possible", visible) == b"1-2\n"
    assert read(folder, "offline", visible) == b"\n"
    assert read(folder, "cpu1/topology/thread_siblings_list", visible) == b"1\n"
    assert read(folder, "cpu2/topology/thread_siblings", visible).strip() == b"4"
    assert read(folder, "cpu1/cache/index0/shared_cpu_list", visible) == b"1-2\n"
    assert read(folder, "cpufreq/policy0/related_cpus", visible) == b"1\n"
    assert read(folder, "cpu1/cache/index0/size", visible) == b"32K\n"


def test_a_list_is_made_once_for_the_same_cpus(folder: CpuFolder) -> None:
    visible = (CpuId(1), CpuId(2))
    once = read(folder, "online", visible)
    assert read(folder, "online", visible) is once
    assert read(folder, "present", visible) == b"1-2\n"
    for other, listed in ((FIRST, b"0\n"), (PAIR, b"0-1\n"), (visible, b"1-2\n")):
        assert read(folder, "online", other) == listed
    whole = folder.read(walk(folder, "online", visible), visible, whole=True)
    assert whole == folder.read(walk(folder, "online", HOST), HOST, whole=True) != once


def test_the_host_reads_its_own_bytes(folder: CpuFolder) -> None:
    nodeid = walk(folder, "possible", HOST)
    assert folder.read(nodeid, HOST, whole=True) == b"0-7\n"


def test_a_file_that_should_be_cut_and_is_no_list_tells_nothing(
    folder: CpuFolder, tmp_path: Path
) -> None:
    path = tmp_path / "devices/system/cpu/cpu0/topology/thread_siblings_list"
    path.write_text("0-3 and all the others\n")
    assert read(folder, "cpu0/topology/thread_siblings_list", FIRST) == b"\n"


def test_links_stay_links(folder: CpuFolder) -> None:
    nodeid = walk(folder, "cpu1/cpufreq", PAIR)
    assert stat.S_ISLNK(folder.attributes(nodeid, PAIR).mode)
    assert folder.readlink(nodeid, PAIR) == b"../cpufreq/policy0"
    with pytest.raises(OSError, match="symbolic"):
        folder.read(nodeid, PAIR, whole=False)


@pytest.mark.parametrize(("name", "mode"), [("secret", 0o400), ("probe", 0o200), ("online", 0o644)])
def test_modes_and_owners_are_the_hosts(
    folder: CpuFolder, tmp_path: Path, name: str, mode: int
) -> None:
    """So that the kernel, which checks them, lets nobody read what only root may."""
    path = tmp_path / "devices/system/cpu" / name
    path.chmod(mode)
    found = folder.attributes(walk(folder, name, FIRST), FIRST)
    status = path.stat()
    assert stat.S_IMODE(found.mode) == mode
    assert (found.uid, found.gid, found.nlink) == (status.st_uid, status.st_gid, 1)


def test_names_that_depend_on_the_reader_are_never_cached(folder: CpuFolder) -> None:
    for path in ("cpu0", "cpu1", "cpufreq", "cpufreq/policy0"):
        parent, _, name = path.rpartition("/")
        found = folder.lookup(walk(folder, parent, PAIR), name, PAIR)
        assert found.entry_valid_ns == 0, path
    for path in ("online", "vulnerabilities", "cpu0/topology", "cpu0/topology/core_id"):
        parent, _, name = path.rpartition("/")
        assert folder.lookup(walk(folder, parent, PAIR), name, PAIR).entry_valid_ns > 0, path


def test_a_listing_with_attributes_has_the_same_validity(folder: CpuFolder) -> None:
    for entry in entries(folder, "", PAIR, plus=True)[2:]:
        assert entry.entry == folder.lookup(folder.root, os.fsdecode(entry.name), PAIR)


@pytest.mark.parametrize("visible", [FIRST, SECOND_PAIR, HOST])
def test_a_listing_goes_on_at_any_offset(folder: CpuFolder, visible: tuple[CpuId, ...]) -> None:
    whole = entries(folder, "", visible)
    assert len(set(names(whole))) == len(whole)
    for offset in range(len(whole) + 3):
        assert entries(folder, "", visible, offset) == whole[offset:]


def test_a_node_of_another_worker_is_found_again(folder: CpuFolder, tmp_path: Path) -> None:
    """This one has not seen the lookup."""
    nodeid = SysfsPaths(str(tmp_path / "x")).nodeid("cpu1/cache/index0/size")
    assert folder.read(nodeid, PAIR, whole=False) == b"32K\n"


def test_a_node_that_nobody_has_is_not_there(folder: CpuFolder) -> None:
    with pytest.raises(FileNotFoundError):
        folder.attributes(NodeId(1 << 62 | 99), HOST)


def test_a_file_of_many_reads_is_whole(folder: CpuFolder, tmp_path: Path) -> None:
    text = b"a line of sixteen\n" * 2000
    (tmp_path / "devices/system/cpu/modalias").write_bytes(text)
    assert read(folder, "modalias", FIRST) == text


def test_a_pipe_in_a_files_place_does_not_hang(folder: CpuFolder, tmp_path: Path) -> None:
    path = tmp_path / "devices/system/cpu/modalias"
    path.unlink()
    os.mkfifo(path)
    assert read(folder, "modalias", FIRST) == b""
