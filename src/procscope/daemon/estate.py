"""The estate: the descriptors that outlive the supervisor, and with them every mount and open file.

fuse     the connection to the kernel
slots    memory of the requests that workers are answering (`daemon/slots.py`)
handles  memory of the contents of open files (`daemon/handles.py`)
state    what is true for the connection's whole life, as JSON: the kernel tells it only once

Three ways lead to a successor: an exec of the supervisor (`reload`), the keeper, and the service
manager's descriptor store; and where all of them are gone, the workers that still serve hold the
same descriptors.

The pinned tree is another connection, and has an estate of its own. Where both go the same way, its
descriptors have the same names with an ending.
"""

from __future__ import annotations

import json
import os
import select
from collections.abc import Mapping
from contextlib import suppress

from procscope.daemon.config import ServeConfig
from procscope.daemon.handles import HandleStore
from procscope.daemon.keeper import FUSE
from procscope.daemon.slots import SlotMemory
from procscope.errors import ProcscopeError
from procscope.fuse.negotiation import ConnectionState
from procscope.fuse.wire import InitFlag
from procscope.values import frozen

SLOTS, HANDLES, STATE = "slots", "handles", "state"
PINNED_ENDING = "-self"
STATE_VERSION = 1
STATE_MEMFD = "procscope-state"
LEAST_PARTS = 8
"""Memory is for at least so many workers, so that a later daemon of the same mount may have more.
What is not used costs nothing."""
_MAX_STATE_BYTES = 1 << 16


@frozen
class EstateState:
    """What holds for the connection's whole life."""

    mountpoint: str
    state_directory: str
    device: str
    """`major:minor` of the superblock, as in mountinfo."""
    connection: ConnectionState

    def to_json(self) -> str:
        """Return it for `from_json` of this or a later release."""
        return json.dumps(
            {
                "version": STATE_VERSION,
                "mountpoint": self.mountpoint,
                "state_directory": self.state_directory,
                "device": self.device,
                "connection": self.connection.to_json(),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> EstateState:
        """Return what `to_json` wrote. Raises ProcscopeError where the text is something else."""
        try:
            stored = json.loads(text)
        except (ValueError, RecursionError):
            raise _unusable("it is not JSON") from None
        if not isinstance(stored, dict) or stored.get("version") != STATE_VERSION:
            raise _unusable(f"it is not of version {STATE_VERSION}")
        texts: dict[str, str] = {}
        for name in ("mountpoint", "state_directory", "device", "connection"):
            value = stored.get(name)
            if not isinstance(value, str):
                raise _unusable(f"{name} is {value!r}")
            texts[name] = value
        return cls(
            texts["mountpoint"],
            texts["state_directory"],
            texts["device"],
            ConnectionState.from_json(texts["connection"]),
        )


def _unusable(why: str) -> ProcscopeError:
    return ProcscopeError(f"what a predecessor has left cannot be used, {why}")


@frozen
class Estate:
    """One daemon's descriptors, and what is behind them."""

    fuse_fd: int
    slots: SlotMemory
    handles: HandleStore
    state_fd: int
    state: EstateState
    needs_resend: bool = False
    """Whether requests that a predecessor has read have to be asked for again: where it kept them
    is not known."""

    @classmethod
    def create(
        cls, fuse_fd: int, state: EstateState, workers: int, least_parts: int = LEAST_PARTS
    ) -> Estate:
        """Return a new one for the connection of `fuse_fd`."""
        parts = max(workers, least_parts)
        state_fd = os.memfd_create(STATE_MEMFD, os.MFD_CLOEXEC)
        os.write(state_fd, state.to_json().encode())
        return cls(fuse_fd, SlotMemory.create(parts), HandleStore.create(parts), state_fd, state)

    @classmethod
    def adopt(cls, fds: Mapping[str, int]) -> Estate:
        """Return the one that a predecessor has left as `fds`. Raises ProcscopeError.

        Contents of open files in a layout that is not known are given up: whoever reads on gets
        the file as it is now. So are requests that wait, where the kernel sends them again.
        """
        missing = {FUSE, SLOTS, STATE} - fds.keys()
        if missing:
            raise _unusable(f"{', '.join(sorted(missing))} is missing")
        state = read_state(fds[STATE])
        needs_resend = False
        try:
            slots = SlotMemory.adopt(fds[SLOTS])
        except ProcscopeError:
            if not state.connection.has(InitFlag.FUSE_HAS_RESEND):
                raise
            slots, needs_resend = SlotMemory.create(LEAST_PARTS), True
        handles: HandleStore | None = None
        if HANDLES in fds:
            with suppress(ProcscopeError):
                handles = HandleStore.adopt(fds[HANDLES])
        if handles is None or handles.parts < slots.workers:
            handles = HandleStore.create(slots.workers)
        return cls(fds[FUSE], slots, handles, fds[STATE], state, needs_resend)

    @property
    def descriptors(self) -> dict[str, int]:
        """What a successor needs, by name."""
        return {
            FUSE: self.fuse_fd,
            SLOTS: self.slots.fd,
            HANDLES: self.handles.fd,
            STATE: self.state_fd,
        }

    def serves(self, config: ServeConfig, *, pinned: bool = False) -> bool:
        """Tell whether this is the living connection of the daemon that `config` describes.

        That of its live tree or, with `pinned`, of its pinned one.
        """
        mountpoint = config.pinned_mountpoint if pinned else config.mountpoint
        same = (
            self.state.mountpoint == mountpoint
            and self.state.state_directory == config.state_directory
        )
        return same and is_connected(self.fuse_fd)

    def close(self) -> None:
        """Close every descriptor; the connection ends with the last process that has it open."""
        self.slots.close()
        self.handles.close()
        os.close(self.state_fd)
        os.close(self.fuse_fd)


def ending(descriptors: Mapping[str, int]) -> dict[str, int]:
    """Return a pinned tree's descriptors by the names that they have beside the live tree's."""
    return {f"{name}{PINNED_ENDING}": fd for name, fd in descriptors.items()}


def divide(fds: Mapping[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """Return the live tree's descriptors, and the pinned tree's by their own names."""
    pinned = {name: fd for name, fd in fds.items() if name.endswith(PINNED_ENDING)}
    live = {name: fd for name, fd in fds.items() if name not in pinned}
    return live, {name.removesuffix(PINNED_ENDING): fd for name, fd in pinned.items()}


def is_connected(fuse_fd: int) -> bool:
    """Tell whether the kernel still has the connection (fuse_dev_poll() in fs/fuse/dev.c)."""
    poll = select.poll()
    poll.register(fuse_fd, 0)
    return not any(events & (select.POLLERR | select.POLLNVAL) for _, events in poll.poll(0))


def close_all(fds: Mapping[str, int]) -> None:
    """Close descriptors that nobody wants."""
    for fd in fds.values():
        with suppress(OSError):
            os.close(fd)


def read_state(fd: int) -> EstateState:
    """Return the state that the memfd `fd` holds. Raises ProcscopeError."""
    try:
        text = os.pread(fd, _MAX_STATE_BYTES, 0).decode("utf-8", "replace")
    except OSError as error:
        raise _unusable(f"its state cannot be read: {error.strerror}") from None
    return EstateState.from_json(text)
