"""Targets: requests in a row to the pinned tree, and what is stored of who is pinned."""

from __future__ import annotations

import atexit
import os
import shutil
import struct
import tempfile
from functools import cache
from pathlib import Path

from procscope.containers.container import Container
from procscope.containers.identity import Identifier
from procscope.daemon.handlelayout import SlotClass
from procscope.daemon.handles import HandleStore
from procscope.daemon.pins import PinStore
from procscope.fuse import opcodes, wire
from procscope.fuse.negotiation import WANTED_WITHOUT_OPEN, negotiate
from procscope.fuse.protocol import Session
from procscope.ids import NodeId, Pid
from procscope.observe.registry import VIEWS
from procscope.tree.nodeids import ROOT
from procscope.tree.pinned import PinnedTree
from procscope.tree.pinnedids import PinnedPaths, join, named_part
from procscope.tree.pinnedids import split as split_id
from procscope.tree.pins import Pin
from tests.fuzz.checks import require
from tests.fuzz.livetree import split
from tests.fuzz.parsers import folder
from tests.fuzz.requests import HEADER, OUT_HEADER, check_reply, whole, with_true_length
from tests.unit.fuse.memory import init_request
from tests.unit.observe.fakehost import FakeHost
from tests.unit.tree.fakesys import make_sys

NUMBER = 0x12345
_SMALL, _LARGE = "ab" * 32, "cd" * 32
_TOTAL_KB = {_SMALL: 64 << 10, _LARGE: 512 << 10}
_PIDS = {5: "0::/\n", 10: f"0::/{_SMALL}\n", 20: f"0::/{_LARGE}\n"}
_NODE_AT, _PID_AT = 16, 32
_LINKS = (NodeId(2), NodeId(3))
_MOST_DESCRIPTORS = 200


class Scene:
    """The tree of a host with two containers, both pinned."""

    def __init__(self, root: Path) -> None:
        host = FakeHost(root)
        make_sys(host.sys)
        for name, total_kb in _TOTAL_KB.items():
            host.add_container(name, limit_bytes=total_kb << 10, quota="100000 100000")
        for pid, cgroup in _PIDS.items():
            host.proc.add(pid, cgroup)
        self.fallbacks = host.fallbacks
        contents = HandleStore.create(1, (SlotClass(4096, 4), SlotClass(65536, 2)))
        contents.adopt_part(0)
        observatory = host.observatory()
        identifier = Identifier(host.proc.path)
        pins = PinStore(str(root / "pins"), str(root / "records"))
        tree = PinnedTree(observatory, identifier, pins, contents, dict(VIEWS))
        agreed = negotiate(init_request(), WANTED_WITHOUT_OPEN)[1]
        assert agreed is not None
        self.session = Session(tree, agreed)
        self.nodes: list[NodeId] = [ROOT, *_LINKS]
        self.totals_kb: dict[NodeId, int] = {}
        sysfs = PinnedPaths(f"{host.sys}/devices/system/cpu")
        parts = (
            *(named_part(name) for name in ("", "proc", "sys")),
            *(named_part(f"proc/{name}") for name in VIEWS),
            *(sysfs.nodeid(name) for name in ("", "online", "cpu0", "cpu3", "cpu0/cpufreq")),
        )
        for pid in (Pid(10), Pid(20)):
            container = identifier.whole_container_of(pid)
            assert container is not None
            pin = pins.of_lifetime(container, observatory.lifetime(container))
            assert pin is not None
            self.nodes += [join(pin.number, part) for part in parts]
            meminfo = join(pin.number, named_part("proc/meminfo"))
            self.totals_kb[meminfo] = _TOTAL_KB[container.id]


@cache
def scene() -> Scene:
    """One for the whole process: making it takes longer than many requests."""
    root = tempfile.mkdtemp(prefix="procscope-fuzz-")
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return Scene(Path(root))


def pinned_tree(data: bytes) -> None:
    """Every answer is one that the kernel takes, and a node is its own container's for everybody.

    No request opens a file, and each container's total is right after every one of them.
    """
    here = scene()
    for raw in split(data):
        one = _with_real_numbers(here, with_true_length(raw))
        reply = here.session.handle(memoryview(one))
        check_reply(one, reply)
        if len(one) >= HEADER and wire.fuse_in_header.unpack(one)["opcode"] == opcodes.FUSE_OPEN:
            require(len(whole(reply)) <= OUT_HEADER, "a file that was opened")
    for node, total_kb in here.totals_kb.items():
        _check_total(here, node, total_kb)
    here.fallbacks.clear()
    require(len(os.listdir("/proc/self/fd")) < _MOST_DESCRIPTORS, "descriptors are lost")


def _with_real_numbers(here: Scene, data: bytes) -> bytes:
    """Small numbers become nodes and pids that there are."""
    if len(data) < HEADER:
        return data
    request = bytearray(data)
    (node,) = struct.unpack_from("=Q", request, _NODE_AT)
    if node < 256:
        struct.pack_into("=Q", request, _NODE_AT, here.nodes[node % len(here.nodes)])
    (pid,) = struct.unpack_from("=I", request, _PID_AT)
    struct.pack_into("=I", request, _PID_AT, (*_PIDS, 0, 4321)[pid % (len(_PIDS) + 2)])
    return bytes(request)


def _check_total(here: Scene, node: NodeId, total_kb: int) -> None:
    body = wire.fuse_read_in.pack(size=1 << 16)
    header = wire.fuse_in_header.pack(
        len=HEADER + len(body), opcode=opcodes.FUSE_READ, unique=1, nodeid=node, pid=5
    )
    content = whole(here.session.handle(memoryview(header + body)))[OUT_HEADER:]
    require(content.endswith(b"\n"), "a file that does not end with a line")
    require(int(content.split()[1]) == total_kb, f"another's meminfo: {content[:60]!r}")


def pin_text() -> bytes:
    """What is stored of a pin whose number is `NUMBER`."""
    return (
        f'{{"name": "{NUMBER:05x}-{"0f" * 16}", "lifetime": "key-7", "key": "key",'
        f' "cgroups": {{"": "/{_SMALL}"}}, "runtime": "oci", "id": "{_SMALL}"}}'
    ).encode()


def pin(data: bytes) -> None:
    """A pin's file of any bytes: a pin of just that number, or none; and others find their own."""
    pins = folder() / "pins"
    pins.mkdir(exist_ok=True)
    (pins / f"{NUMBER:05x}").write_bytes(data)
    store = PinStore(str(pins), str(folder() / "records"))
    found = store.of_number(NUMBER)
    if found is not None:
        _check_pin(store, found)
    store.of_name(data[:64].decode("latin-1"))
    store.sweep()
    for text in (data, data[:8]):
        nodeid = NodeId(int.from_bytes(text[:8].ljust(8, b"\0"), "little"))
        known = split_id(nodeid)
        require(known is None or join(*known) == nodeid, "not the same id again")


def _check_pin(store: PinStore, found: Pin) -> None:
    require(found.number == NUMBER, f"number {found.number}")
    require(store.of_name(found.name) == found, "not found by its name")
    require(isinstance(found.container, Container), "no container")
    require("/" not in found.name and "\0" not in found.name, f"no name: {found.name!r}")
