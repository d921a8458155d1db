"""The pinned tree's mount, on a folder of the live tree, and the worker that serves it.

It is an addition: where it cannot be mounted, or its connection ends, the live tree serves on, and
the folder is empty meanwhile. Who mounts it walks through the live tree, and has to wait for its
workers; so that is done by a process of its own.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from functools import partial

from procscope.daemon.children import Child, Children
from procscope.daemon.config import ServeConfig
from procscope.daemon.crew import PINNED_WORKER
from procscope.daemon.estate import (
    STATE_MEMFD,
    Estate,
    EstateState,
    ending,
    is_connected,
    read_state,
)
from procscope.daemon.inheritance import Inheritance, find_pinned
from procscope.daemon.mountpoint import mount_name, mounted_at
from procscope.errors import ProcscopeError
from procscope.fuse import device
from procscope.fuse.negotiation import WANTED_WITHOUT_OPEN
from procscope.fuse.wire import InitFlag

_log = logging.getLogger(__name__)
MOUNTER = "pinned mounter"
_PATIENCE_S = 3.0
_RETRY_S = 2.0
"""Where containers come and go, mounts change all the time."""
_FAILED_S = 60.0


class PinnedMount:
    """The pinned tree of one daemon."""

    def __init__(
        self,
        config: ServeConfig,
        inherited: Inheritance,
        children: Children,
        start_worker: Callable[[Estate], None],
    ) -> None:
        """Take over what a predecessor has left, after the live tree's estate was."""
        self._config = config
        self._children = children
        self._start_worker = start_worker
        self.estate: Estate | None = find_pinned(config, inherited) if config.pinned else None
        self._new: tuple[int, int] | None = None
        """The connection and the state of one that is being mounted."""
        self._next_try_s = 0.0
        self._to_look_at = False
        """Whether mounts have changed since it was seen to be mounted."""

    @property
    def descriptors(self) -> dict[str, int]:
        """What a successor needs, by name."""
        return {} if self.estate is None else ending(self.estate.descriptors)

    @property
    def device(self) -> str:
        """`major:minor` of the superblock; empty where there is none."""
        return "" if self.estate is None else self.estate.state.device

    def status(self, outsiders: int) -> dict[str, object] | None:
        """Return what is to tell of it; None where there is none.

        `outsiders` is how often it was walked from no container.
        """
        if self.estate is None:
            return None
        return {
            "mountpoint": self._config.pinned_mountpoint,
            "device": self.device,
            "workers": [child.pid for child in self._children.named(PINNED_WORKER)],
            "outsiders": outsiders,
        }

    def start(self) -> bool:
        """Start the worker and see to the mount, and wait a moment; tell if it is a new one.

        The live tree's workers run. Raises ProcscopeError where no process can be started.
        """
        if not self._config.pinned:
            return False
        if self.estate is not None:
            self._start_worker(self.estate)
        self._mount()
        deadline_s = time.monotonic() + _PATIENCE_S
        while self._children.named(MOUNTER) and time.monotonic() < deadline_s:
            signal.sigtimedwait((signal.SIGCHLD,), 0.02)
            self._children.replace_dead()
        return self._finish()

    def look_after(self, mounts_changed: bool) -> bool:
        """Replace what has ended or was unmounted; tell whether there is another connection now."""
        if not self._config.pinned or self._children.named(MOUNTER):
            return False
        if self._finish():
            return True
        if self.estate is not None and not is_connected(self.estate.fuse_fd):
            _log.error("the connection of the pinned tree was aborted; mounting it anew")
            self._children.stop(PINNED_WORKER)
            self.estate.close()
            self.estate = None
            self._next_try_s = 0.0
        self._to_look_at = self._to_look_at or mounts_changed or self.estate is None
        if self._to_look_at and time.monotonic() >= self._next_try_s:
            self._mount()
        return False

    def look_again(self) -> None:
        """See soon whether it is mounted: what it was mounted on was mounted again."""
        self._to_look_at = True
        self._next_try_s = 0.0

    def forget(self, *, keeps_connection: bool) -> None:
        """Close it, in a child that does not serve it; not in one that mounts its connection."""
        if keeps_connection:
            return
        if self.estate is not None:
            self.estate.close()
        self._give_up()

    def close(self) -> None:
        """Close every descriptor."""
        if self.estate is not None:
            self.estate.close()
            self.estate = None
        self._give_up()

    def _mount(self) -> None:
        """Begin to mount it, unless it is mounted where it belongs."""
        config = self._config
        self._next_try_s = time.monotonic() + _RETRY_S
        self._to_look_at = False
        if mounted_at(config.mountpoint, config.proc) is None:
            return
        if self.estate is not None:
            mount = mounted_at(config.pinned_mountpoint, config.proc)
            if mount is not None and mount.device == self.device:
                return
            run = partial(_mount_again, self.estate.fuse_fd, config)
        else:
            self._give_up()
            try:
                self._new = device.open_device(), os.memfd_create(STATE_MEMFD, os.MFD_CLOEXEC)
            except (ProcscopeError, OSError) as error:
                _log.error("there is no pinned tree: %s", error)
                return
            run = partial(_mount_anew, *self._new, config)
        self._children.start(Child(MOUNTER, run, once=True))

    def _finish(self) -> bool:
        """Serve what has been mounted; tell whether it is a new connection."""
        if self._new is None or self._children.named(MOUNTER):
            return False
        fuse_fd, state_fd = self._new
        try:
            state = read_state(state_fd)
        except ProcscopeError:
            # Why it is not mounted has been logged.
            self._give_up()
            self._next_try_s = time.monotonic() + _FAILED_S
            return False
        self._new = None
        os.set_blocking(fuse_fd, False)
        os.close(state_fd)
        self.estate = Estate.create(fuse_fd, state, 1, least_parts=1)
        self._start_worker(self.estate)
        return True

    def _give_up(self) -> None:
        if self._new is not None:
            for fd in self._new:
                os.close(fd)
            self._new = None


def _mount_anew(fuse_fd: int, state_fd: int, config: ServeConfig) -> None:
    """Mount a new connection, agree with the kernel, and write down what was agreed."""
    try:
        _mount(fuse_fd, config)
        connection = device.exchange_init(fuse_fd, WANTED_WITHOUT_OPEN, idmapped=True)
        if not connection.has(InitFlag.FUSE_NO_OPEN_SUPPORT):
            device.unmount(config.pinned_mountpoint)
            raise ProcscopeError("this kernel does not open files by itself (Linux 5.1)")
        mount = mounted_at(config.pinned_mountpoint, config.proc)
        if mount is None:
            raise ProcscopeError(f"{config.pinned_mountpoint} was unmounted by somebody else")
        state = EstateState(
            config.pinned_mountpoint, config.state_directory, mount.device, connection
        )
        os.write(state_fd, state.to_json().encode())
    except ProcscopeError as error:
        _log.error("there is no pinned tree: %s", error)


def _mount_again(fuse_fd: int, config: ServeConfig) -> None:
    try:
        _mount(fuse_fd, config)
    except ProcscopeError as error:
        _log.error("the pinned tree stays unmounted: %s", error)


def _mount(fuse_fd: int, config: ServeConfig) -> None:
    target = config.pinned_mountpoint
    while mounted_at(target, config.proc) is not None and device.unmount(target):
        _log.info("taking away what was left mounted at %s", target)
    name = mount_name(config.mountpoint)
    context = config.selinux_context
    # Nobody asks this tree for OPEN: the kernel itself has to check modes.
    device.mount(fuse_fd, target, name, context=context, idmapped=True, read_only=True)
