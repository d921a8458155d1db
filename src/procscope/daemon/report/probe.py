"""Are the files right? Read through the mount, and compared with what they must say.

The reader is this process: what its own container must see is worked out beside the daemon, from
the same cgroups. A read may wait for ever, so that it is done in a thread; who asks does not wait.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing

from procscope.cgroup.hierarchy import discover
from procscope.containers.identity import Identifier
from procscope.daemon.config import CPU_FOLDER, ServeConfig
from procscope.ids import Pid
from procscope.linux.mountinfo import read_mountinfo
from procscope.observe.host import HostFiles
from procscope.observe.observatory import Observatory
from procscope.observe.registry import VIEWS
from procscope.views import cpu_sysfs

_PATIENCE_S = 2.0
_GOOD_FOR_S = 1.0
_TRIES = 3
"""A limit may change between a read and the look at what it must give."""
_ONLINE = "online"
_MEMTOTAL = re.compile(rb"^MemTotal:\s*([0-9]+) kB$", re.MULTILINE)
_PROCESSOR = re.compile(rb"^processor\s*:\s*([0-9]+)$", re.MULTILINE)

Read = Callable[[str], bytes]
Check = Callable[[], str]


def facts(read: Read, files: tuple[str, ...]) -> Mapping[str, object]:
    """Return what the files say that is easily got wrong, of those among `files`.

    `read` returns a file by its path in the mount, and raises OSError.
    """
    found: dict[str, object] = {}
    if "proc/meminfo" in files:
        found["MemTotal of proc/meminfo"] = tuple(_MEMTOTAL.findall(read("proc/meminfo")))
    if "proc/cpuinfo" in files:
        found["processors of proc/cpuinfo"] = tuple(_PROCESSOR.findall(read("proc/cpuinfo")))
    if CPU_FOLDER in files:
        found[f"{CPU_FOLDER}/{_ONLINE}"] = read(f"{CPU_FOLDER}/{_ONLINE}")
    return found


def check_mount(config: ServeConfig) -> str:
    """Return "" where a read through the mount gives the right numbers, or what is wrong.

    Waits for as long as the daemon does.
    """
    problem = ""
    for _ in range(_TRIES):
        try:
            seen = facts(lambda path: _read(f"{config.mountpoint}/{path}"), config.files)
        except OSError as error:
            return f"{error.filename or config.mountpoint}: {error.strerror}"
        expected = _expected(config)
        problem = next(
            (
                f"{name} is {seen[name]!r} and must be {value!r}"
                for name, value in expected.items()
                if seen[name] != value
            ),
            "",
        )
        if not problem:
            break
    return problem


def _expected(config: ServeConfig) -> Mapping[str, object]:
    hierarchies = discover(read_mountinfo(config.proc))
    observatory = Observatory(
        hierarchies, HostFiles(config.proc, config.sys), None, cpu_count=config.cpu_count
    )
    with closing(observatory), closing(Identifier(config.proc)) as identifier:
        container = identifier.container_of(Pid(os.getpid()))

        def read(path: str) -> bytes:
            if not path.startswith(CPU_FOLDER):
                return observatory.render(VIEWS[path.removeprefix("proc/")], container)
            host = observatory.host.read_sys(path.removeprefix("sys/"))
            visible = observatory.visible_cpus(container)
            return host if container is None else cpu_sysfs.render(_ONLINE, host, visible)

        return facts(read, config.files)


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        pieces = []
        while piece := file.read(1 << 16):
            pieces.append(piece)
    return b"".join(pieces)


class Prober:
    """Asks in a thread of its own, one at a time, and remembers the answer for a moment."""

    def __init__(
        self, check: Check, *, patience_s: float = _PATIENCE_S, good_for_s: float = _GOOD_FOR_S
    ) -> None:
        self._check = check
        self._patience_s = patience_s
        self._good_for_s = good_for_s
        self._changed = threading.Condition()
        self._running = False
        self._answer = ""
        self._answered_s = -float("inf")

    def problem(self) -> str:
        """Return "" where all is right, or what is wrong; within the patience, whatever happens."""
        deadline_s = time.monotonic() + self._patience_s
        with self._changed:
            if time.monotonic() - self._answered_s < self._good_for_s:
                return self._answer
            if not self._running:
                self._running = True
                threading.Thread(target=self._ask, daemon=True).start()
            while self._running:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0 or not self._changed.wait(left_s):
                    return f"no answer within {self._patience_s:g} s"
            return self._answer

    def _ask(self) -> None:
        try:
            answer = self._check()
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing is known to be right
            answer = f"{type(error).__name__}: {error}"
        with self._changed:
            self._answer, self._answered_s, self._running = answer, time.monotonic(), False
            self._changed.notify_all()
