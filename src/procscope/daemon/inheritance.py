"""Where a daemon finds what its predecessor has left: exec, service manager, keeper, workers."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping

from procscope.daemon import handles, slots
from procscope.daemon.config import ServeConfig
from procscope.daemon.estate import (
    HANDLES,
    PINNED_ENDING,
    SLOTS,
    STATE,
    STATE_MEMFD,
    Estate,
    close_all,
    divide,
    read_state,
)
from procscope.daemon.keeper import FUSE
from procscope.daemon.keeping import KeeperLink
from procscope.daemon.readiness import STORE_PREFIX
from procscope.errors import ProcscopeError
from procscope.linux import syscalls
from procscope.linux.processes import ProcessIdentity, identity_of, open_process

_log = logging.getLogger(__name__)
ENVIRONMENT_NAME = "PROCSCOPE_INHERIT"
"""JSON that one supervisor leaves for the code that it executes: descriptors by name."""
TRIAL_NAME = "PROCSCOPE_TRIAL"
_FIRST_PASSED_FD = 3
"""SD_LISTEN_FDS_START of sd_listen_fds(3)."""
_MEMFDS = {
    f"/memfd:{STATE_MEMFD} (deleted)": STATE,
    f"/memfd:{slots.MEMFD_NAME} (deleted)": SLOTS,
    f"/memfd:{handles.MEMFD_NAME} (deleted)": HANDLES,
}
_OF_AN_ESTATE = (FUSE, SLOTS, HANDLES, STATE)
_PARTS = frozenset((*_OF_AN_ESTATE, *(f"{name}{PINNED_ENDING}" for name in _OF_AN_ESTATE)))
_WORKER = re.compile(r"procscope-[sw]\d+\n?", re.ASCII)
"""The name of a process; `s` is a worker of the pinned tree."""
_FUSE_DEVICE = os.makedev(10, 229)
"""`fuse` in the kernel's list of devices (Documentation/admin-guide/devices.txt)."""


class Inheritance:
    """What the code that was executed in this process has left."""

    def __init__(self, fds: dict[str, int] | None = None, reloads: int = 0) -> None:
        self.fds = {} if fds is None else fds
        """The estate's, and `lock`, `control` and `reply`, each if there is one."""
        self.reloads = reloads
        """How often this process has executed newer code, this time included."""
        self.pinned: dict[str, int] = {}
        """The pinned tree's estate, wherever the live tree's was found."""

    @classmethod
    def from_environment(cls) -> Inheritance:
        """Take it from the environment, where nobody else finds it afterwards."""
        text = os.environ.pop(ENVIRONMENT_NAME, "")
        if not text:
            return cls()
        try:
            stored = json.loads(text)
            fds = {str(name): int(fd) for name, fd in stored["fds"].items()}
            inherited = cls(fds, reloads=int(stored["reloads"]))
            for fd in fds.values():
                os.set_inheritable(fd, False)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing is inherited
            _log.warning("$%s is of no use: %s", ENVIRONMENT_NAME, error)
            return cls()
        return inherited

    def to_environment(self) -> dict[str, str]:
        """Return the variable to execute newer code with; makes the descriptors inheritable."""
        for fd in self.fds.values():
            os.set_inheritable(fd, True)
        return {ENVIRONMENT_NAME: json.dumps({"fds": self.fds, "reloads": self.reloads})}


def find_estate(
    config: ServeConfig, inherited: Inheritance, keeper: KeeperLink | None
) -> Estate | None:
    """Return the living estate of a predecessor of this daemon; None where there is none.

    The caller must hold the daemon's lock: then no other supervisor has it.
    """
    for name, fds in _candidates(config, inherited, keeper):
        if not fds:
            continue
        live, pinned = divide(fds)
        try:
            estate = Estate.adopt(live)
        except ProcscopeError as error:
            _log.error("nothing is taken over from %s: %s", name, error)
            close_all(fds)
            continue
        if estate.serves(config):
            _log.info("taking over %s from %s", config.mountpoint, name)
            inherited.pinned = pinned
            return estate
        estate.close()
        close_all(pinned)
    return None


def find_pinned(config: ServeConfig, inherited: Inheritance) -> Estate | None:
    """Return the living estate of a predecessor's pinned tree; None where there is none.

    To be called after `find_estate`, under the same lock.
    """
    for fds in (inherited.pinned, *_orphaned(config, config.pinned_mountpoint)):
        if not fds:
            continue
        try:
            estate = Estate.adopt(fds)
        except ProcscopeError as error:
            _log.error("the pinned tree is not taken over: %s", error)
            close_all(fds)
            continue
        if estate.serves(config, pinned=True):
            return estate
        estate.close()
    return None


def _orphaned(config: ServeConfig, mountpoint: str) -> Iterator[Mapping[str, int]]:
    """Yield the descriptors of each worker that was left and serves `mountpoint`."""
    for _, fds in orphans(config):
        with contextlib.suppress(ProcscopeError):
            if read_state(fds[STATE]).mountpoint == mountpoint:
                yield fds
                continue
        close_all(fds)


def _candidates(
    config: ServeConfig, inherited: Inheritance, keeper: KeeperLink | None
) -> Iterator[tuple[str, Mapping[str, int]]]:
    yield (
        "the code before",
        {name: fd for name, fd in inherited.fds.items() if name in _PARTS},
    )
    yield "the service manager", _stored_by_service_manager()
    if keeper is not None:
        kept: Mapping[str, int] = {}
        try:
            kept = keeper.get()
        except OSError as error:
            _log.error("nothing is taken over from the keeper: %s", error)
        yield "the keeper", kept
    for worker, fds in orphans(config):
        yield f"worker {worker.pid}", fds


def _stored_by_service_manager() -> Mapping[str, int]:
    """Return the descriptors that systemd kept, see sd_listen_fds(3); each once."""
    count, pid = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_PID", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if not count.isdecimal() or pid != str(os.getpid()):
        return {}
    found: dict[str, int] = {}
    for index in range(int(count)):
        fd = _FIRST_PASSED_FD + index
        name = names[index] if index < len(names) else ""
        with contextlib.suppress(OSError):
            os.set_inheritable(fd, False)
            if name.startswith(STORE_PREFIX) and name not in found:
                found[name.removeprefix(STORE_PREFIX)] = fd
            else:
                os.close(fd)
    return found


def orphans(config: ServeConfig) -> Iterator[tuple[ProcessIdentity, Mapping[str, int]]]:
    """Yield every worker that a dead supervisor has left, and copies of its descriptors.

    They are pidfd_getfd(2)'s, and the caller's to close.
    """
    for entry in os.listdir(config.proc):
        if not entry.isdecimal() or not _WORKER.fullmatch(_comm(config.proc, entry)):
            continue
        identity = identity_of(int(entry), config.proc)
        if identity is None:
            continue
        fds = _copy_descriptors(identity, config)
        if STATE in fds:
            yield identity, fds
        else:
            close_all(fds)


def _comm(proc: str, pid: str) -> str:
    try:
        with open(f"{proc}/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _copy_descriptors(identity: ProcessIdentity, config: ServeConfig) -> dict[str, int]:
    pidfd = open_process(identity, config.proc)
    if pidfd is None:
        return {}
    found: dict[str, int] = {}
    folder = f"{config.proc}/{identity.pid}/fd"
    with contextlib.suppress(OSError):
        # Only root may look there, and only root's processes are taken for workers.
        if os.stat(folder).st_uid == os.geteuid():
            for name in os.listdir(folder):
                what = _part(f"{folder}/{name}")
                if what is not None and what not in found:
                    found[what] = syscalls.pidfd_getfd(pidfd, int(name))
    os.close(pidfd)
    return found


def _part(descriptor: str) -> str | None:
    """Which part of an estate a descriptor in /proc/PID/fd is; None if it is none."""
    link = os.readlink(descriptor)
    # The device of another container is in a /dev that we do not see, and so has a shorter name.
    # Only what may be the device is looked at: a file of a mount that is not answered would wait.
    if link.endswith("/fuse") and os.stat(descriptor).st_rdev == _FUSE_DEVICE:
        return FUSE
    return _MEMFDS.get(link)
