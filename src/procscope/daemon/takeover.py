"""The mount of a daemon: taken over from a predecessor, or made anew."""

from __future__ import annotations

import contextlib
import logging
import os

from procscope.daemon.config import ServeConfig
from procscope.daemon.estate import STATE, Estate, EstateState, close_all, read_state
from procscope.daemon.inheritance import Inheritance, find_estate, orphans
from procscope.daemon.keeping import KeeperLink
from procscope.daemon.mountpoint import mount_name, mounted_at, prepare
from procscope.errors import ProcscopeError
from procscope.fuse import device
from procscope.linux.processes import ProcessIdentity, terminate

_log = logging.getLogger(__name__)


def take_over(
    config: ServeConfig, inherited: Inheritance, keeper: KeeperLink | None
) -> Estate | None:
    """Return what a predecessor has left, mounted where it belongs; None where that cannot be.

    The caller must hold the daemon's lock.
    """
    estate = find_estate(config, inherited, keeper)
    if estate is None:
        return None
    if estate.needs_resend:
        _stop_strangers(estate, config)
    mount = mounted_at(config.mountpoint, config.proc)
    if mount is not None and mount.device == estate.state.device:
        return estate
    try:
        mount_again(estate, config)
    except ProcscopeError as error:
        _log.error("the connection of a predecessor is given up: %s", error)
        stop_workers(estate, config)
        estate.close()
        return None
    return estate


def mount_again(estate: Estate, config: ServeConfig) -> None:
    """Mount the connection that is served where somebody has unmounted it.

    Containers still use it: it can be mounted once more (Linux 5.15, fuse_test_super() in
    fs/fuse/inode.c). Raises ProcscopeError.
    """
    prepare(config.mountpoint, config.proc, make=config.makes_mountpoint)
    _mount(estate.fuse_fd, config)


def mount_anew(config: ServeConfig) -> Estate:
    """Mount a new connection. Raises ProcscopeError."""
    prepare(config.mountpoint, config.proc, make=config.makes_mountpoint)
    fd = device.open_device()
    _mount(fd, config)
    try:
        connection = device.exchange_init(fd, idmapped=config.idmapped_mounts)
        os.set_blocking(fd, False)
        mount = mounted_at(config.mountpoint, config.proc)
        if mount is None:
            raise ProcscopeError(f"{config.mountpoint} was unmounted by somebody else")
        state = EstateState(config.mountpoint, config.state_directory, mount.device, connection)
        return Estate.create(fd, state, config.workers)
    except BaseException:
        device.unmount(config.mountpoint)
        os.close(fd)
        raise


def stop_workers(estate: Estate, config: ServeConfig) -> None:
    """End every worker that a predecessor has left."""
    for index in range(estate.slots.workers):
        stop_worker(estate, config, index)


def end_service(
    config: ServeConfig, estate: Estate, pinned: Estate | None, keeper: KeeperLink | None
) -> None:
    """End what serves besides the supervisor and its children, and unmount.

    What is mounted on a folder of the mount goes with it.
    """
    stop_workers(estate, config)
    if pinned is not None:
        stop_workers(pinned, config)
    if keeper is not None:
        keeper.drop()
    device.unmount(config.mountpoint)
    if pinned is not None:
        pinned.close()
    estate.close()


def stop_worker(estate: Estate, config: ServeConfig, index: int) -> None:
    """End the worker that a predecessor has left at place `index`, if there is one.

    It answers what it has read; one that does not within the deadline is killed, and its
    successor answers for it.
    """
    slots = estate.slots.worker(index)
    owner = slots.owner()
    if owner is None:
        return
    if terminate(ProcessIdentity(*owner), config.deadline_s, config.proc):
        _log.warning("worker %d of the predecessor did not end when asked, and was killed", index)
    else:
        # What it had not answered when it died, and of what, nobody knows.
        slots.count_kill()
    # After a reload it is a child of this process.
    with contextlib.suppress(ChildProcessError):
        os.waitpid(owner[0], os.WNOHANG)
    slots.clear_owner()


def _stop_strangers(estate: Estate, config: ServeConfig) -> None:
    """End the workers of a release whose slots do not tell who they are."""
    for worker, fds in orphans(config):
        with contextlib.suppress(ProcscopeError):
            if read_state(fds[STATE]) == estate.state:
                terminate(worker, config.deadline_s, config.proc)
        close_all(fds)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(worker.pid, os.WNOHANG)


def _mount(fd: int, config: ServeConfig) -> None:
    device.mount(
        fd,
        config.mountpoint,
        mount_name(config.mountpoint),
        context=config.selinux_context,
        idmapped=config.idmapped_mounts,
    )
