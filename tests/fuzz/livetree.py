"""Target: requests in a row to the tree of a host with two containers, as one worker gets them."""

from __future__ import annotations

import atexit
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from procscope.containers.identity import Identifier
from procscope.daemon.handlelayout import SlotClass
from procscope.daemon.handles import HandleStore
from procscope.fuse import opcodes, wire
from procscope.fuse.protocol import Session
from procscope.ids import NodeId
from procscope.observe.registry import VIEWS
from procscope.tree.live import LiveTree
from procscope.tree.nodeids import ROOT, SysfsPaths, named_nodeid
from tests.fuzz.checks import require
from tests.fuzz.requests import HEADER, OUT_HEADER, check_reply, whole, with_true_length
from tests.unit.fuse.memory import state
from tests.unit.observe.fakehost import FakeHost
from tests.unit.tree.fakesys import make_sys

SMALL_KB, LARGE_KB = 64 << 10, 512 << 10
_PIDS = {5: "", 10: "0::/small\n", 20: "0::/large\n"}
_TOTAL_KB = {5: 1 << 20, 10: SMALL_KB, 20: LARGE_KB}
_MOST_REQUESTS = 24
_MOST_DESCRIPTORS = 200
_MEMINFO = named_nodeid("proc/meminfo")
_NODE_AT, _PID_AT, _FH_AT = 16, 32, HEADER
_WITH_HANDLE = (opcodes.FUSE_READ, opcodes.FUSE_RELEASE, opcodes.FUSE_READDIR)


class Scene:
    """The tree, and what short numbers in a request stand for."""

    def __init__(self, root: Path) -> None:
        host = FakeHost(root)
        make_sys(host.sys)
        host.add_container("small", limit_bytes=SMALL_KB << 10, quota="100000 100000")
        host.add_container("large", limit_bytes=LARGE_KB << 10, quota="300000 100000")
        for pid, cgroup in _PIDS.items():
            host.proc.add(pid, cgroup or "0::/\n")
        self._fallbacks = host.fallbacks
        self._contents = HandleStore.create(1, (SlotClass(4096, 4), SlotClass(65536, 2)))
        self._contents.adopt_part(0)
        tree = LiveTree(host.observatory(), Identifier(host.proc.path), self._contents, dict(VIEWS))
        self.session = Session(tree, state())
        sysfs = SysfsPaths(f"{host.sys}/devices/system/cpu")
        names = ("", "online", "cpu0", "cpu3", "cpu3/online", "cpufreq/policy2", "cpu0/cpufreq")
        self.nodes: list[NodeId] = [
            ROOT,
            named_nodeid("proc"),
            *(named_nodeid(f"proc/{name}") for name in VIEWS),
            *(sysfs.nodeid(name) for name in names),
        ]
        self.handles = [0]

    def release_all(self) -> None:
        """Start the next input with nothing open."""
        for handle in self.handles:
            body = wire.fuse_release_in.pack(fh=handle)
            header = wire.fuse_in_header.pack(
                len=HEADER + len(body), opcode=opcodes.FUSE_RELEASE, unique=1, nodeid=_MEMINFO
            )
            self.session.handle(memoryview(header + body))
        self.handles = [0]
        self._fallbacks.clear()
        require(len(os.listdir("/proc/self/fd")) < _MOST_DESCRIPTORS, "descriptors are lost")


@cache
def scene() -> Scene:
    """One for the whole process: making it takes longer than many requests."""
    root = tempfile.mkdtemp(prefix="procscope-fuzz-")
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return Scene(Path(root))


def split(data: bytes) -> Iterator[bytes]:
    """Cut an input into requests by the `len` of each."""
    for _ in range(_MOST_REQUESTS):
        if len(data) < 4:
            return
        (length,) = struct.unpack_from("=I", data)
        length = max(4, min(length, len(data)))
        yield data[:length]
        data = data[length:]


def live_tree(data: bytes) -> None:
    """Every answer is one that the kernel takes, and no reader gets another container's total."""
    here = scene()
    try:
        for raw in split(data):
            one = _with_real_numbers(here, with_true_length(raw))
            reply = here.session.handle(memoryview(one))
            check_reply(one, reply)
            if len(one) >= HEADER:
                _look_at(here, one, whole(reply))
    finally:
        here.release_all()


def _with_real_numbers(here: Scene, data: bytes) -> bytes:
    """Small numbers become nodes, pids and handles that there are."""
    if len(data) < HEADER:
        return data
    request = bytearray(data)
    (node,) = struct.unpack_from("=Q", request, _NODE_AT)
    if node < 256:
        struct.pack_into("=Q", request, _NODE_AT, here.nodes[node % len(here.nodes)])
    (pid,) = struct.unpack_from("=I", request, _PID_AT)
    struct.pack_into("=I", request, _PID_AT, (*_PIDS, 0, 4321)[pid % (len(_PIDS) + 2)])
    (opcode,) = struct.unpack_from("=I", request, 4)
    if opcode in _WITH_HANDLE and len(request) >= _FH_AT + 8:
        (handle,) = struct.unpack_from("=Q", request, _FH_AT)
        if handle < 256:
            struct.pack_into("=Q", request, _FH_AT, here.handles[handle % len(here.handles)])
    return bytes(request)


def _look_at(here: Scene, request: bytes, reply: bytes) -> None:
    """Remember what was opened; open and read meminfo anew for whoever has asked."""
    header = wire.fuse_in_header.unpack(request)
    if len(reply) < OUT_HEADER or wire.fuse_out_header.unpack(reply)["error"]:
        return
    if header["opcode"] == opcodes.FUSE_OPEN:
        handle = wire.fuse_open_out.unpack(reply, OUT_HEADER)["fh"]
        here.handles.append(handle)
        if header["nodeid"] == _MEMINFO and header["pid"] in _TOTAL_KB:
            _check_total(here, header["pid"], handle)


def _check_total(here: Scene, pid: int, handle: int) -> None:
    body = wire.fuse_read_in.pack(fh=handle, size=1 << 16, read_flags=wire.FUSE_READ_LOCKOWNER)
    header = wire.fuse_in_header.pack(
        len=HEADER + len(body), opcode=opcodes.FUSE_READ, unique=1, nodeid=_MEMINFO, pid=pid
    )
    content = whole(here.session.handle(memoryview(header + body)))[OUT_HEADER:]
    require(content.endswith(b"\n"), "a file that does not end with a line")
    require(int(content.split()[1]) == _TOTAL_KB[pid], f"another's meminfo: {content[:60]!r}")
