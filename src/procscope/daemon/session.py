"""Views for one `procscope run`: a running daemon's, or those of one for its lifetime alone."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator

from procscope.daemon import logs
from procscope.daemon.config import DEFAULT_MOUNTPOINT, ServeConfig
from procscope.daemon.mountpoint import Standing, standing
from procscope.daemon.supervisor import Supervisor
from procscope.errors import ExitCode, ProcscopeError
from procscope.linux import syscalls

_READY = b"+"
_PREFIX = "procscope-run-"
_STARTING_S = 10
"""A launcher makes its folder before it locks it."""
_PRIVATE_WORKERS = 2
_MAX_REPORT_BYTES = 4096


@contextlib.contextmanager
def views_for_run() -> Iterator[str]:
    """Give the mount point of the views for as long as the context lasts.

    A daemon that is brought up for it mounts in the caller's mount namespace, which should be a
    private one. Raises ProcscopeError where that fails.
    """
    if standing(DEFAULT_MOUNTPOINT) is Standing.LIVE:
        yield DEFAULT_MOUNTPOINT
        return
    parent = _run_directory()
    _remove_stale(parent)
    directory = tempfile.mkdtemp(prefix=_PREFIX, dir=parent)
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        mountpoint = os.path.join(directory, "views")
        os.mkdir(mountpoint)
        with _private_daemon(
            ServeConfig(
                mountpoint=mountpoint,
                workers=_PRIVATE_WORKERS,
                run_directory=os.path.join(directory, "state"),
            )
        ):
            yield mountpoint
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


def _run_directory() -> str:
    """A directory that is emptied at a reboot."""
    candidates = ("/run", os.environ.get("XDG_RUNTIME_DIR", ""))
    found = next((path for path in candidates if path and os.access(path, os.W_OK)), None)
    return found or tempfile.gettempdir()


def _remove_stale(parent: str) -> None:
    """Remove what launchers left that were killed: the kernel has dropped their locks."""
    for name in os.listdir(parent):
        path = os.path.join(parent, name)
        if not name.startswith(_PREFIX):
            continue
        with contextlib.suppress(OSError):
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                old = time.time() - os.fstat(lock).st_mtime > _STARTING_S
                if old and os.fstat(lock).st_uid == os.geteuid():
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


@contextlib.contextmanager
def _private_daemon(config: ServeConfig) -> Iterator[None]:
    reader, writer = os.pipe()
    launcher = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _serve_privately(config, launcher, writer)
    os.close(writer)
    try:
        # The daemon says "+" when it serves, or why it cannot.
        # One read: the workers hold the pipe open as well.
        said = os.read(reader, _MAX_REPORT_BYTES)
        if said != _READY:
            raise ProcscopeError(
                said.decode(errors="replace") or "the daemon for this run died at its start",
                exit_code=ExitCode.RUN_FAILED,
            )
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        os.close(reader)


def _serve_privately(config: ServeConfig, launcher: int, writer: int) -> None:
    """Be the supervisor in this forked process, until the launcher ends or stops it."""

    def ready() -> None:
        os.write(writer, _READY)
        os.close(writer)

    code: int = ExitCode.FAILED
    try:
        # Ctrl-C in the terminal is for the command, not for the daemon beside it.
        os.setsid()
        syscalls.set_pdeathsig(signal.SIGTERM)
        os.environ.pop("NOTIFY_SOCKET", None)
        if os.getppid() == launcher:
            logs.configure(debug=False)
            logging.getLogger().setLevel(logging.WARNING)
            code = Supervisor(config, on_ready=ready).run()
    except ProcscopeError as error:
        os.write(writer, str(error).encode())
    except OSError as error:
        os.write(writer, f"no views: {error}".encode())
    finally:
        os._exit(code)
