"""Containers whose mounts are dead get living ones; before a planned stop all are taken away.

The work is done in processes of their own: the supervisor has workers to look after.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterable

from procscope.daemon.board import Board
from procscope.daemon.config import LXCFS_MOUNTPOINT, ServeConfig
from procscope.daemon.mountpoint import mount_name
from procscope.errors import ProcscopeError
from procscope.inject.attach import (
    detach_all,
    detached_from_json,
    detached_to_json,
    heal_all,
    reattach,
    taken_away,
)
from procscope.inject.model import Detached, FileResult, NamespaceResult, Outcome, Source
from procscope.linux.processes import has_ended

_log = logging.getLogger(__name__)
_DETACHED = "detached.json"
_DETACHING_S = 60.0
_PAUSES_S = (0.25, 1.0, 4.0)
"""Before another try for those that could not be helped: one that is being stopped, say, or that
does not answer in time because its host has much else to do."""


def source_of(config: ServeConfig, device: str, pinned_device: str = "") -> Source:
    """Return what is attached to containers: the files of this daemon's mount.

    What containers have from its pinned tree, on `pinned_device`, is alive too.
    """
    return Source(
        config.mountpoint,
        device,
        also_lxcfs=config.mountpoint == LXCFS_MOUNTPOINT,
        name=mount_name(config.mountpoint).source,
        pinned_device=pinned_device,
    )


def heal(config: ServeConfig, source: Source, board: Board | None = None) -> None:
    """Replace every dead mount, and attach again what the last planned stop took away.

    How many files that were is counted on `board`. Where a dead mount could not be replaced, that
    is tried a few times more.
    """
    try:
        is_done = _heal_dead(config, source, board)
        again = reattach(_what_was_taken_away(config), source, proc=config.proc)
        given_back = _report("given back", again, (Outcome.REPLACED, Outcome.ATTACHED))
        if board is not None:
            board.count_given_back(given_back)
        # On a disk that cannot be written it stays, and is given back once more: that changes
        # nothing where the files are there already.
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(config.state_directory, _DETACHED))
        for pause_s in _PAUSES_S:
            if is_done:
                break
            time.sleep(pause_s)
            is_done = _heal_dead(config, source, board)
    except (ProcscopeError, OSError) as error:
        _log.error("containers are not looked after: %s", error)


def _heal_dead(config: ServeConfig, source: Source, board: Board | None) -> bool:
    """Replace dead mounts; tell whether none is left."""
    healed = heal_all(source, proc=config.proc)
    files = _report("attached again", healed, (Outcome.REPLACED, Outcome.ATTACHED))
    if board is not None:
        board.count_healed(files)
    return not any(any(_problems(result)) for result in healed)


def take_away(config: ServeConfig, source: Source, fuse_fds: Iterable[int] = ()) -> None:
    """Take the files away from every container, in a child process, and wait for it.

    What was taken away is written down for the next start. The child does not keep `fuse_fds`, the
    connections that it may have to ask: it must not wait for itself.
    """
    pid = os.fork()
    if pid == 0:
        try:
            for fuse_fd in fuse_fds:
                os.close(fuse_fd)
            _take_away(config, source)
        except BaseException:  # noqa: BLE001 - the process ends here whatever it was
            _log.exception("containers keep mounts that end now")
        finally:
            os._exit(0)
    pidfd = os.pidfd_open(pid)
    if not has_ended(pidfd, _DETACHING_S):
        _log.error("some containers keep mounts that end now: no end after %.0f s", _DETACHING_S)
        os.kill(pid, signal.SIGKILL)
    os.close(pidfd)
    os.waitpid(pid, 0)


def _take_away(config: ServeConfig, source: Source) -> None:
    try:
        results = detach_all(source, proc=config.proc)
        _report("taken away", results, (Outcome.TAKEN_AWAY,))
        detached = taken_away(results)
        if detached:
            path = os.path.join(config.state_directory, _DETACHED)
            with open(path, "w", encoding="utf-8") as file:
                file.write(detached_to_json(detached))
    except (ProcscopeError, OSError) as error:
        _log.error("containers keep mounts that end now: %s", error)


def _what_was_taken_away(config: ServeConfig) -> tuple[Detached, ...]:
    try:
        with open(os.path.join(config.state_directory, _DETACHED), encoding="utf-8") as file:
            return detached_from_json(file.read())
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        _log.error("what was taken away from containers is not known: %s", error)
        return ()


def _report(what: str, results: Iterable[NamespaceResult], good: tuple[Outcome, ...]) -> int:
    """Log what was done and what was not; return the number of files."""
    namespaces, files = 0, 0
    for result in results:
        done = sum(file.outcome in good for file in result.files)
        namespaces += bool(done)
        files += done
        for problem in _problems(result):
            _log.error("process %d's container: %s", result.process.pid, problem)
    if namespaces:
        _log.info("%s: %d files of %d containers", what, files, namespaces)
    return files


def _problems(result: NamespaceResult) -> Iterable[str]:
    if result.error:
        yield result.error
    for file in result.files:
        if file.outcome is Outcome.FAILED:
            yield _failure(file)


def _failure(file: FileResult) -> str:
    return f"{file.mount_point}: {file.detail}"
