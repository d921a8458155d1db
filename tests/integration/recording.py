"""A mount whose every request and reply is kept, with what write(2) said to the reply."""

from __future__ import annotations

import errno
import os
import pickle
import select
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from procscope.cgroup.hierarchy import discover
from procscope.containers.identity import Identifier
from procscope.daemon.handlelayout import SlotClass
from procscope.daemon.handles import HandleStore
from procscope.fuse.device import exchange_init, mount, open_device, unmount
from procscope.fuse.filesystem import Filesystem
from procscope.fuse.protocol import Session
from procscope.linux.mountinfo import read_mountinfo
from procscope.observe.host import HostFiles
from procscope.observe.observatory import Observatory
from procscope.observe.records import RecordStore
from procscope.observe.registry import VIEWS
from procscope.tree.live import LiveTree
from tests.integration.agents import fork

_BUFFER_BYTES = 1 << 15


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request, and what became of its reply."""

    request: bytes
    reply: bytes
    written: int
    """What write(2) returned; below 0 it is -errno, 0 where no reply was due."""
    calls: tuple[tuple[str, tuple[Any, ...]], ...]
    """What the decoder asked of the filesystem: method and arguments."""


class _Listening:
    """A filesystem that notes what it is asked."""

    def __init__(self, filesystem: LiveTree) -> None:
        self._filesystem = filesystem
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any method of the tree
        method = getattr(self._filesystem, name)

        def call(*arguments: object) -> object:
            self.calls.append((name, arguments))
            return method(*arguments)

        return call


@contextmanager
def recording() -> Iterator[tuple[Path, list[Exchange]]]:
    """The mountpoint, and all exchanges in their order once the mount is gone."""
    found: list[Exchange] = []
    with tempfile.TemporaryDirectory(prefix="procscope-test-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        target, log = folder / "mount", folder / "exchanges"
        target.mkdir()
        device = open_device()
        stop, stopper = os.pipe()
        try:
            mount(device, str(target))
            pid = fork()
            if pid == 0:
                os.close(stopper)
                _serve(device, stop, folder, log)
        finally:
            os.close(device)
            os.close(stop)
        try:
            yield target, found
        finally:
            unmount(str(target))
            # A mount namespace elsewhere may hold a copy: the connection does not always end.
            os.close(stopper)
            _, status = os.waitpid(pid, 0)
            assert os.waitstatus_to_exitcode(status) == 0
        found += pickle.loads(log.read_bytes())


def _serve(device: int, stop: int, folder: Path, log: Path) -> None:
    code = 1
    try:
        state = exchange_init(device)
        os.set_blocking(device, False)
        contents = HandleStore.create(1, (SlotClass(1 << 16, 64),))
        contents.adopt_part(0)
        observatory = Observatory(
            discover(read_mountinfo()), HostFiles(), RecordStore(str(folder / "records"))
        )
        listening = _Listening(LiveTree(observatory, Identifier(), contents, VIEWS))
        session = Session(cast("Filesystem", listening), state)
        found: list[Exchange] = []
        while (request := _read(device, stop)) is not None:
            listening.calls.clear()
            reply = session.handle(memoryview(request))
            whole = reply if isinstance(reply, bytes) else b"".join(reply or ())
            written = _write(device, whole) if whole else 0
            found.append(Exchange(request, whole, written, tuple(listening.calls)))
        log.write_bytes(pickle.dumps(found))
        code = 0
    except BaseException:  # noqa: BLE001 - told by the exit code
        traceback.print_exc()
    finally:
        os._exit(code)


def _read(device: int, stop: int) -> bytes | None:
    """The next request; None where the mount is gone, or the other end of `stop` is closed."""
    while True:
        ready, _, _ = select.select([device, stop], [], [])
        if stop in ready:
            return None
        try:
            return os.read(device, _BUFFER_BYTES)
        except OSError as error:
            # A request that was interrupted between waking and reading: ENOENT, or EAGAIN.
            if error.errno == errno.ENODEV:
                return None


def _write(device: int, reply: bytes) -> int:
    try:
        return os.write(device, reply)
    except OSError as error:
        return -(error.errno or 1)
