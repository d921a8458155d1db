"""Proves what a worker does with the request that its predecessor died with."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from procscope.daemon.config import ServeConfig
from procscope.daemon.handles import HandleStore
from procscope.daemon.slots import RequestSlot
from procscope.daemon.worker import answer_left_over
from procscope.fuse import opcodes, wire
from procscope.ids import FileHandle
from procscope.tree.nodeids import named_nodeid
from tests.unit.fuse.memory import request, state
from tests.unit.observe.fakehost import MEMINFO, FakeHost

PID = 10


class Scene:
    """A host with a container, a connection, and the slot of a worker that has died."""

    def __init__(self, root: Path) -> None:
        self.host = FakeHost(root)
        self.host.add_container("small", limit_bytes=64 << 20)
        self.host.proc.add(PID, "0::/small\n")
        self.config = ServeConfig(
            run_directory=str(root / "run"), proc=self.host.proc.path, sys=str(self.host.sys)
        )
        self.handles = HandleStore(1)
        self.handles.adopt(0)
        self.slot = RequestSlot()
        self.kernel, self.ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.kernel.settimeout(1)

    def leave(self, deaths: int) -> None:
        """An OPEN of meminfo that so many workers before the last one have died with."""
        body = wire.fuse_open_in.pack(flags=os.O_RDONLY)
        opened = request(opcodes.FUSE_OPEN, body, nodeid=named_nodeid("proc/meminfo"), pid=PID)
        self.slot.buffer[: len(opened)] = opened
        for _ in range(deaths):
            self.slot.count_death()

    def start_successor(self) -> bytes:
        answer_left_over(
            self.config,
            self.host.hierarchies,
            self.ours.fileno(),
            state(),
            self.handles,
            self.slot,
        )
        return self.kernel.recv(4096)

    def content(self, reply: bytes) -> bytes:
        opened = wire.fuse_open_out.unpack(reply, wire.fuse_out_header.size)
        return self.handles.get(FileHandle(opened["fh"])) or b""

    def close(self) -> None:
        self.kernel.close()
        self.ours.close()
        self.handles.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.close()


def test_a_request_that_outlived_one_worker_is_answered_as_any_other(scene: Scene) -> None:
    scene.leave(deaths=0)
    assert scene.content(scene.start_successor()).startswith(b"MemTotal:          65536 kB\n")
    assert scene.slot.pending() is None


def test_a_request_that_killed_two_workers_gets_the_hosts_bytes(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.leave(deaths=1)
    assert scene.content(scene.start_successor()) == MEMINFO.encode()
    assert "has killed 2 workers" in caplog.text
    assert "'opcode': 14" in caplog.text, "its header tells what it was"


def test_a_request_that_killed_three_workers_gets_eio(scene: Scene) -> None:
    scene.leave(deaths=2)
    assert wire.fuse_out_header.unpack(scene.start_successor())["error"] in (
        -errno.EIO,
        (1 << 32) - errno.EIO,
    )
    assert scene.slot.pending() is None


def test_the_next_request_starts_from_no_death(scene: Scene) -> None:
    scene.leave(deaths=2)
    scene.start_successor()
    scene.leave(deaths=0)
    assert scene.content(scene.start_successor()).startswith(b"MemTotal:          65536 kB\n")
