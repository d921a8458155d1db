"""Proves what a worker does with the requests that its predecessor died with."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.containers.identity import Nobody
from procscope.daemon.config import ServeConfig
from procscope.daemon.handles import HandleStore
from procscope.daemon.slots import SlotMemory
from procscope.daemon.worker import run_worker, share_out
from procscope.fuse import opcodes, wire
from procscope.fuse.filesystem import Caller, Opened
from procscope.ids import FileHandle, NodeId
from procscope.tree.live import LiveTree
from procscope.tree.nodeids import named_nodeid
from tests.unit.fuse.memory import request, state
from tests.unit.observe.fakehost import MEMINFO, FakeHost

PID = 10
CONTAINERS = b"MemTotal:          65536 kB\n"


def error_of(reply: bytes) -> int:
    return -wire.fuse_out_header.unpack(reply)["error"]


class Scene:
    """A host with a container, a connection, and the slot of a worker that has died."""

    def __init__(self, root: Path) -> None:
        self.host = FakeHost(root)
        self.host.add_container("small", limit_bytes=64 << 20)
        self.host.proc.add(PID, "0::/small\n")
        self.config = ServeConfig(
            run_directory=str(root / "run"), proc=self.host.proc.path, sys=str(self.host.sys)
        )
        self.handles = HandleStore.create(1)
        self.memory = SlotMemory.create(1)
        self.slots = self.memory.worker(0)
        self.kernel, self.ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.kernel.settimeout(1)

    def leave(self, index: int = 0, *, unique: int = 1, begun: bool = False) -> None:
        """An OPEN of meminfo in a slot; the last worker was answering it, or not yet."""
        body = wire.fuse_open_in.pack(flags=os.O_RDONLY)
        opened = request(
            opcodes.FUSE_OPEN, body, nodeid=named_nodeid("proc/meminfo"), pid=PID, unique=unique
        )
        self.slots.prepare(index)
        self.slots.buffers[index][: len(opened)] = opened
        if begun:
            self.slots.begin(index)

    def leave_after(self, deaths: int) -> None:
        """One that so many workers have died with."""
        self.leave()
        for _ in range(deaths):
            self.slots.count_death()
            self.slots.begin(0)

    def start_successor(self) -> None:
        run_worker(
            self.config,
            self.host.hierarchies,
            self.ours.fileno(),
            state(),
            self.handles,
            0,
            self.slots,
            only_left_over=True,
        )

    def reply(self) -> bytes:
        return self.kernel.recv(4096)

    def content(self, reply: bytes) -> bytes:
        opened = wire.fuse_open_out.unpack(reply, wire.fuse_out_header.size)
        return self.handles.get(FileHandle(opened["fh"])) or b""

    def close(self) -> None:
        self.kernel.close()
        self.ours.close()
        self.handles.close()
        self.memory.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.close()


def test_a_request_that_outlived_one_worker_is_answered_as_any_other(scene: Scene) -> None:
    scene.leave_after(deaths=1)
    scene.start_successor()
    assert scene.content(scene.reply()).startswith(CONTAINERS)
    assert scene.slots.pending() == []


def test_a_request_that_killed_two_workers_gets_the_hosts_bytes(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.leave_after(deaths=2)
    scene.start_successor()
    assert scene.content(scene.reply()) == MEMINFO.encode()
    assert "has killed 2 workers" in caplog.text
    assert "'opcode': 14" in caplog.text, "its header tells what it was"


def test_a_request_that_killed_three_workers_gets_eio(scene: Scene) -> None:
    scene.leave_after(deaths=3)
    scene.start_successor()
    assert error_of(scene.reply()) == errno.EIO
    assert scene.slots.pending() == []


def test_the_next_request_starts_from_no_death(scene: Scene) -> None:
    scene.leave_after(deaths=3)
    scene.start_successor()
    scene.reply()
    scene.leave_after(deaths=1)
    scene.start_successor()
    assert scene.content(scene.reply()).startswith(CONTAINERS)


def test_all_that_a_worker_had_read_is_answered_the_suspect_last(scene: Scene) -> None:
    """It may kill the successor as well, and the others have waited long enough."""
    for index in range(5):
        scene.leave(index, unique=index + 1, begun=index == 1)
    scene.start_successor()
    answered = [wire.fuse_out_header.unpack(scene.reply())["unique"] for _ in range(5)]
    assert answered == [1, 3, 4, 5, 2]
    assert scene.slots.pending() == []


def test_poison_among_what_is_left_is_found_one_by_one(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of four requests kill whoever answers them for their container."""
    poisonous = {2, 3}
    for index in range(4):
        scene.leave(index, unique=index + 1, begun=index == 0)
    opened = LiveTree.open

    class Death(BaseException):
        """Ends the process, as a crash does."""

    def open_(self: LiveTree, caller: Caller, nodeid: NodeId, flags: int) -> Opened:
        if caller.unique in poisonous and not isinstance(self._identifier, Nobody):
            raise Death
        return opened(self, caller, nodeid, flags)

    monkeypatch.setattr(LiveTree, "open", open_)
    deaths = 0
    while scene.slots.pending():
        try:
            scene.start_successor()
        except Death:
            deaths += 1
    assert deaths == 2 * len(poisonous)
    contents = {}
    for _ in range(4):
        reply = scene.reply()
        contents[wire.fuse_out_header.unpack(reply)["unique"]] = scene.content(reply)
    of_host = {unique for unique, content in contents.items() if content == MEMINFO.encode()}
    assert of_host == poisonous
    assert all(contents[unique].startswith(CONTAINERS) for unique in contents.keys() - poisonous)


def test_a_content_that_was_kept_before_the_death_is_the_answer(scene: Scene) -> None:
    """Nothing is kept twice, whether the first answer was on its way or not."""
    scene.handles.adopt_part(0)
    kept = scene.handles.put(b"kept", opener=1)
    scene.leave(unique=1, begun=True)
    scene.start_successor()
    assert scene.content(scene.reply()) == b"kept"
    assert scene.handles.in_use() == 1
    assert scene.handles.get(kept) == b"kept"


def test_what_is_kept_for_an_answer_that_nobody_wants_is_given_back(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The predecessor had answered, and the file is closed since."""

    def write(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOENT, "injected")

    monkeypatch.setattr(os, "write", write)
    scene.leave(unique=1, begun=True)
    scene.start_successor()
    assert scene.handles.in_use() == 0


@given(limit=st.integers(64, 1 << 20))
def test_descriptors_are_shared_out_so_that_some_are_left(limit: int) -> None:
    readers, files = share_out(limit)
    assert 8 <= readers <= 1700
    assert 8 <= files <= 17 * 1024
    assert limit - readers - files >= max(40, limit // 16)
    if limit >= 20_000:
        # Seventeen for each of a thousand containers on v1.
        assert files >= 17_000


@given(limit=st.integers(0, 64))
def test_with_hardly_any_descriptors_a_few_files_are_kept_all_the_same(limit: int) -> None:
    """What does not fit is given up when something has to be opened."""
    readers, files = share_out(limit)
    assert readers == 8
    assert 8 <= files <= 16
