"""The state directory: records of containers, and what a successor needs to know of the mount."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil

from procscope.daemon.config import ServeConfig
from procscope.errors import ProcscopeError
from procscope.fuse.negotiation import ConnectionState

_log = logging.getLogger(__name__)
_BOOT_ID = "boot_id"
_CONNECTION = "connection.json"


def prepare_state(config: ServeConfig) -> None:
    """Make the state directory; empty it where it is of an earlier boot of the host.

    Inode numbers of cgroups, by which records are named, are unique for one boot only, and not
    everywhere is /run emptied at the next. Raises ProcscopeError.
    """
    try:
        boot_id = _read(f"{config.proc}/sys/kernel/random/boot_id")
        if _read(os.path.join(config.state_directory, _BOOT_ID)) != boot_id:
            shutil.rmtree(config.state_directory, ignore_errors=True)
        os.makedirs(config.records_directory, mode=0o700, exist_ok=True)
        _write(os.path.join(config.state_directory, _BOOT_ID), boot_id)
    except OSError as error:
        raise ProcscopeError(
            f"cannot keep state in {config.state_directory}: {error.strerror}",
            hint="give a writable directory with --run-directory",
        ) from None


def store_connection(config: ServeConfig, state: ConnectionState) -> None:
    """Write down what was negotiated at INIT: the kernel does not tell it a second time."""
    try:
        _write(os.path.join(config.state_directory, _CONNECTION), state.to_json())
    except OSError as error:
        _log.warning("%s is not written down: %s", _CONNECTION, error.strerror)


def load_connection(config: ServeConfig) -> ConnectionState | None:
    """Return what was written down; None where nothing was, or nothing that is of use."""
    text = _read(os.path.join(config.state_directory, _CONNECTION))
    with contextlib.suppress(ProcscopeError):
        return ConnectionState.from_json(text) if text else None
    return None


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
