"""What fuzzing starts from: recorded files of kernels, and well-formed requests of every kind."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from procscope.cgroup.model import TaskCounts
from procscope.daemon import keeper
from procscope.daemon.estate import EstateState
from procscope.daemon.handlelayout import SlotClass
from procscope.daemon.handles import HandleStore
from procscope.daemon.slots import SlotMemory
from procscope.fuse import opcodes, wire
from procscope.fuse.opcodes import OPERATIONS
from procscope.observe.loadblock import LoadBlock
from procscope.views.loadavg import Load
from tests.fuzz.checks import joined
from tests.fuzz.hosttexts import LEDGER
from tests.fuzz.pinnedtree import pin_text
from tests.unit.containers.fakeproc import stat_line
from tests.unit.fuse.memory import init_request, request, state

DATA = Path(__file__).parents[1] / "data"
_LARGEST_BYTES = 4096
_ID = "ab" * 32
_PATHS = (
    "/",
    f"/docker/{_ID}",
    f"/system.slice/docker-{_ID}.scope/init.scope",
    f"/kubepods.slice/kubepods-pod1.slice/cri-containerd-{_ID}.scope",
    f"/kubepods-pod1.slice:cri-containerd:{_ID}",
    f"/machine.slice/libpod-{_ID}.scope/container",
    "/lxc.payload.web",
    "/procscope/web-1",
    "/../../elsewhere",
    f"/{_ID}/gone (deleted)",
)


@cache
def seeds() -> Mapping[str, tuple[bytes, ...]]:
    """The inputs for each target."""
    bodies = tuple(_requests())
    cgroup_texts = tuple(_cgroup_texts())
    cgroup_files = _recorded("cgroup", "*/sys/**/*")
    return {
        "request": bodies,
        "trace": bodies,
        "live-tree": (*bodies, *_walks()),
        "pinned-tree": (*bodies, *_walks()),
        "pin": (pin_text(), (1 << 63 | 5 << 45 | 9).to_bytes(8, "little")),
        "init": tuple(bytes(init_request(minor=minor)) for minor in (12, 22, 36, 45)),
        "connection-state": (state().to_json().encode(),),
        "estate-state": (EstateState("/m", "/s", "0:9", state()).to_json().encode(),),
        "attach-plan": (_MOUNTS,),
        "slots": tuple(_left_slots()),
        "handles": tuple(_left_contents()),
        "recent": (b"\x01" + bytes(128), b"\x03" + struct.pack("=8Q", 2, 0, 0, 0, 0, 5, 0, 0)),
        "keeper": tuple(_packets()),
        "record": (_identity(), LEDGER.to_bytes()),
        "ledger": (LEDGER.to_bytes(),),
        "load-block": (LoadBlock(Load(1, 2, 3), TaskCounts(1, 2, 3), 4, 5).to_bytes(),),
        "task-stat": (stat_line(7), stat_line(7, comm=") R 1 (")),
        "cgroups": cgroup_texts,
        "identity": (
            *(joined(text, b"PPid:\t9\nNSpid:\t10\t2\n", text) for text in cgroup_texts),
            joined(b"0::/x\n", "PPid:\t\u00b2\n".encode(), b"0::/x\n"),
        ),
        "status": (b"Name:\tsh\nPid:\t9\nPPid:\t1\nNSpid:\t9\t1\n",),
        "mountinfo": _recorded("cgroup", "*/mountinfo"),
        "cpulist": (b"0-3,8\n", b"\n", b"0-1,4-5,1023", b"ff,00000001\n", b"3\n"),
        "cgroup-files": cgroup_files,
        "cgroup-v2": (joined(*_V2), joined(*([b""] * len(_V2)))),
        "cgroup-v1": (joined(*_V1),),
        "runtime-names": (joined(*_RUNTIME_FILES),),
        "cpuinfo": _recorded("proc", "*/cpuinfo"),
        "stat": _recorded("proc", "*/stat"),
        "meminfo": _recorded("proc", "*/meminfo"),
        "small-texts": (
            *_recorded("proc", "*/diskstats"),
            *_recorded("proc", "*/swaps"),
            *_recorded("proc", "*/slabinfo"),
            *_recorded("proc", "*/pressure/*"),
        ),
        "cpu-sysfs": (b"0-3\n", b"f\n", b"0 1 2\n", b"(null)\n", b"00000000,00000005\n"),
    }


def _recorded(folder: str, pattern: str) -> tuple[bytes, ...]:
    files = sorted(path for path in (DATA / folder).glob(pattern) if path.is_file())
    return tuple({path.read_bytes()[:_LARGEST_BYTES]: None for path in files})


def _requests() -> Iterator[bytes]:
    """Every operation with a struct of zeros and with one of ones, and names."""
    for operation in OPERATIONS:
        tail = b"".join(name + b"\0" for name in (b"file", b"link")[: operation.names])
        for fill in (b"\0", b"\1"):
            body = fill * operation.body_bytes
            yield bytes(request(operation.opcode, body + tail, nodeid=2))


def _walks() -> Iterator[bytes]:
    """LOOKUP, OPEN, READ, READ, RELEASE of the first 30 nodes, for three readers."""
    read = wire.fuse_read_in.pack(fh=1, size=4096, read_flags=wire.FUSE_READ_LOCKOWNER)
    listing = wire.fuse_read_in.pack(fh=0, size=4096)
    for node in range(30):
        for pid in range(3):
            yield b"".join(
                bytes(request(opcode, body, nodeid=node, pid=pid))
                for opcode, body in (
                    (opcodes.FUSE_LOOKUP, b"proc\0"),
                    (opcodes.FUSE_GETATTR, bytes(wire.fuse_getattr_in.size)),
                    (opcodes.FUSE_OPEN, bytes(wire.fuse_open_in.size)),
                    (opcodes.FUSE_READ, read),
                    (opcodes.FUSE_READ, read),
                    (opcodes.FUSE_READDIR, listing),
                    (opcodes.FUSE_READDIRPLUS, listing),
                    (opcodes.FUSE_READLINK, b""),
                    (opcodes.FUSE_RELEASE, wire.fuse_release_in.pack(fh=1)),
                )
            )


def _left_slots() -> Iterator[bytes]:
    """Memory as it is made, and four requests of which the second was being answered."""
    memory = SlotMemory.create(1)
    yield b"\0" + os.pread(memory.fd, 64, 0)
    memory.close()
    control = struct.pack("=6Q", 4711, 9, 2, 1, 3, 4).ljust(2048, b"\0")
    bodies = [bytes(request(opcode, bytes(40), nodeid=2)).ljust(256, b"\0") for opcode in range(5)]
    yield b"\1" + control + b"".join(bodies[1:])
    yield b"\1" + control + bodies[3] + bytes(256) + bodies[2] + b"\xff" * 256


def _left_contents() -> Iterator[bytes]:
    """A store as it is made, and contents that are open, released, and being replaced."""
    store = HandleStore.create(2, (SlotClass(256, 4), SlotClass(4096, 2)))
    yield b"\0" + os.pread(store.fd, 256, 0)
    store.close()
    rows = ((1, 5, 100, 0, 0, 7), (2, 5, 100, 1, 2, 8), (1, 9, 256, 2, 1, 9), (1, 3, 300, 0, 0, 7))
    words = [word for row in rows * 3 for word in (*row, 0, 0)]
    yield b"\1" + struct.pack(f"={len(words)}Q", *words)


def _packets() -> Iterator[bytes]:
    for operation in ("hello", "put", "get", "drop", "other"):
        for count in (0, 2):
            held = {f"name{number}": number for number in range(count)}
            message, _ = keeper.request(operation, "/mount", held)
            yield bytes([count]) + message


def _cgroup_texts() -> Iterator[bytes]:
    for path in _PATHS:
        yield f"0::{path}\n".encode()
        yield f"9:memory:{path}\n4:cpu,cpuacct:{path}\n1:name=systemd:/\n0::/x\n".encode()


def _identity() -> bytes:
    return json.dumps({"cgroups": {"": "/c", "memory": "/c"}, "birth_ticks": 4711}).encode()


_MOUNTS = b"""1 0 8:1 / / rw - ext4 /dev/sda rw
2 1 0:5 / /proc rw shared:5 - proc proc rw
3 2 0:99 /proc/meminfo /proc/meminfo ro - fuse.procscope procscope rw
4 2 0:98 /proc/stat /proc/stat ro - fuse.procscope procscope rw
5 4 0:98 /proc/stat /proc/stat ro master:3 - fuse.procscope procscope rw
6 1 0:6 / /sys rw - sysfs sysfs rw
7 6 0:97 / /sys/devices/system/cpu rw - tmpfs tmpfs rw
"""
_V2 = (
    b"67108864\n", b"1048576\n", b"anon 4096\nfile 8192\ninactive_file 4096\n", b"max\n", b"0\n",
    b"150000 100000\n", b"usage_usec 9\nuser_usec 5\nsystem_usec 4\nthrottled_usec 1\n", b"0-3\n",
    b"8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n", b"1\n2\n", b"1\n2\n3\n",
    b"some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
)  # fmt: skip
_V1 = (
    b"67108864\n", b"1048576\n", b"total_rss 4096\ntotal_cache 8192\n", b"134217728\n",
    b"1048576\n", b"150000\n", b"100000\n", b"nr_periods 1\nthrottled_time 5\n", b"0-3\n",
    b"user 5\nsystem 4\n", b"1 2 3 4\n", b"cpu user system\n0 1 2\n1 3 4\n2 5 6\n3 7 8\n",
    b"8:0 Read 1\n8:0 Write 2\nTotal 3\n", b"8:0 Read 4096\n8:0 Write 2\nTotal 4098\n", b"1\n",
)  # fmt: skip
_RUNTIME_FILES = (
    b'{"data-root": "/var/lib/docker"}',
    b'{"Name": "/web", "ID": "x"}',
    json.dumps([{"id": "4f" * 32, "names": ["db"]}]).encode(),
    b'{"annotations": {"nerdctl/name": "a", "io.kubernetes.cri.sandbox-name": "p"}}',
)
