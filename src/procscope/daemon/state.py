"""The state directory: records of containers, sockets and lock of the daemon."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator

from procscope.daemon.config import ServeConfig
from procscope.errors import ProcscopeError

_BOOT_ID = "boot_id"
_MODE = 0o700


def prepare_state(config: ServeConfig) -> None:
    """Make the state directory; empty it where it is of an earlier boot of the host.

    Where all is as it must be nothing is written: a disk that is full or read-only does not keep
    the daemon from being started again. Inode numbers of cgroups, by which records are named, are
    unique for one boot only, and not everywhere is /run emptied at the next. A daemon and a keeper
    may do this at the same moment, one after the other. Raises ProcscopeError.
    """
    try:
        os.makedirs(config.run_directory, exist_ok=True)
        with _locked(config.run_directory):
            _prepare(config)
    except OSError as error:
        raise ProcscopeError(
            f"cannot keep state in {config.state_directory}: {error.strerror}",
            hint="give a writable directory with --run-directory",
        ) from None


def _prepare(config: ServeConfig) -> None:
    boot_id = _read(f"{config.proc}/sys/kernel/random/boot_id")
    is_of_this_boot = _read(os.path.join(config.state_directory, _BOOT_ID)) == boot_id
    if not is_of_this_boot and os.path.lexists(config.state_directory):
        # Only where it outlives a boot, since /run does not.
        import shutil

        shutil.rmtree(config.state_directory, ignore_errors=True)
    for path in (config.state_directory, config.records_directory):
        # The mode that makedirs(3) is given is for the last folder alone.
        os.makedirs(path, mode=_MODE, exist_ok=True)
        if stat.S_IMODE(os.stat(path).st_mode) != _MODE:
            os.chmod(path, _MODE)
    if not is_of_this_boot:
        _write(os.path.join(config.state_directory, _BOOT_ID), boot_id)


@contextlib.contextmanager
def _locked(directory: str) -> Iterator[None]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    """Replace a file by a whole new one."""
    temporary = f"{path}.new"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
    os.rename(temporary, path)
