"""Views for containers that run already: attached, taken away, and repaired, from outside.

Each mount namespace is entered by a forked child, so that the caller may have any state but for
threads, and is never kept waiting longer than its timeout. The caller has root.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator

from procscope.containers.container import Container
from procscope.errors import ProcscopeError
from procscope.inject.jobs import MAX_MOUNTS, Job, run_jobs
from procscope.inject.model import (
    Detached,
    NamespaceResult,
    Outcome,
    Over,
    Source,
    Wanted,
    wanted_files,
)
from procscope.inject.namespaces import find_namespaces, look_into
from procscope.inject.plan import removable, suspects
from procscope.linux.mountinfo import Mount
from procscope.linux.processes import ProcessIdentity, identity_of
from procscope.values import as_dict

TIMEOUT_S = 5.0
"""For one namespace."""


def attach(
    process: ProcessIdentity,
    source: Source,
    files: Collection[str],
    *,
    container: Container | None = None,
    proc: str = "/proc",
    timeout_s: float = TIMEOUT_S,
) -> NamespaceResult:
    """Give the container of a process its views, over the kernel's own files.

    `files` are paths in the daemon's mount (`proc/meminfo`). With `container`, the process is
    checked to be in it once more when it is held. What is attached already stays as it is, and
    what the container's owner has mounted there too. Raises ProcscopeError where nothing was done.
    """
    job = Job(process, wanted_files(files), container=container, own_root=True)
    return _raised_for(run_jobs([job], source, proc, timeout_s)[0])


def detach(
    process: ProcessIdentity,
    source: Source,
    files: Collection[str] | None = None,
    *,
    container: Container | None = None,
    proc: str = "/proc",
    timeout_s: float = TIMEOUT_S,
) -> NamespaceResult:
    """Take the views of `source`, and dead ones, away from the mount namespace of a process.

    Only those of `files`, or all. Raises ProcscopeError where nothing was done.
    """
    roots = None if files is None else frozenset(f"/{file}" for file in files)
    job = Job(process, (), container=container, detach=True, roots=roots)
    return _raised_for(run_jobs([job], source, proc, timeout_s)[0])


def heal_all(
    source: Source, *, proc: str = "/proc", timeout_s: float = TIMEOUT_S
) -> tuple[NamespaceResult, ...]:
    """Replace every dead view, in every mount namespace but the host's, by that of `source`.

    Wherever it was mounted. Namespaces without one are not entered and not in the result. Raises
    ProcscopeError where nothing could be looked at.
    """
    jobs = []
    for inode, process, mounts in _looked_into(proc):
        wanted = suspects(mounts, source)[:MAX_MOUNTS]
        if wanted:
            jobs.append(Job(process, wanted, namespace=inode))
    return run_jobs(jobs, source, proc, timeout_s)


def detach_all(
    source: Source, *, proc: str = "/proc", timeout_s: float = TIMEOUT_S
) -> tuple[NamespaceResult, ...]:
    """Take the views of `source`, and dead ones, away from every mount namespace but the host's.

    `taken_away` makes of the result what `reattach` takes. Raises ProcscopeError where nothing
    could be looked at.
    """
    jobs = [
        Job(process, (), namespace=inode, detach=True, whole=True)
        for inode, process, mounts in _looked_into(proc)
        if removable(mounts, source, None, whole=True)
    ]
    return run_jobs(jobs, source, proc, timeout_s)


def reattach(
    detached: Iterable[Detached],
    source: Source,
    *,
    proc: str = "/proc",
    timeout_s: float = TIMEOUT_S,
) -> tuple[NamespaceResult, ...]:
    """Attach again what was taken away.

    Only where the process still runs and is in the same mount namespace; others are not in the
    result.
    """
    jobs = [
        Job(
            one.process,
            tuple(Wanted(root, path, Over.ANYTHING) for root, path in one.mounts),
            namespace=one.namespace,
        )
        for one in detached
        if identity_of(one.process.pid, proc) == one.process
    ]
    return run_jobs(jobs, source, proc, timeout_s)


def taken_away(results: Iterable[NamespaceResult]) -> tuple[Detached, ...]:
    """Return what `detach` and `detach_all` have taken away."""
    found = []
    for result in results:
        # The innermost were taken away first, and the outermost are attached first.
        mounts = tuple(
            (file.root, file.mount_point)
            for file in reversed(result.files)
            if file.outcome is Outcome.TAKEN_AWAY
        )
        if mounts:
            found.append(Detached(result.process, result.namespace, mounts))
    return tuple(found)


def detached_to_json(detached: Iterable[Detached]) -> str:
    """Return a text to keep until `detached_from_json`."""
    return json.dumps([as_dict(one) for one in detached])


def detached_from_json(text: str) -> tuple[Detached, ...]:
    """Return what was kept. Raises ValueError where the text is something else."""
    try:
        return tuple(
            Detached(
                ProcessIdentity(int(one["process"]["pid"]), int(one["process"]["start_ticks"])),
                int(one["namespace"]),
                tuple((str(root), str(path)) for root, path in one["mounts"]),
            )
            for one in json.loads(text)
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not what was taken away: {error!r}") from None


def _looked_into(
    proc: str,
) -> Iterator[tuple[int, ProcessIdentity, tuple[Mount, ...]]]:
    try:
        namespaces = find_namespaces(proc)
    except OSError as error:
        raise ProcscopeError(f"cannot look for containers in {proc}: {error.strerror}") from None
    for namespace in namespaces:
        found = look_into(namespace, proc)
        if found is not None:
            yield (namespace.inode, *found)


def _raised_for(result: NamespaceResult) -> NamespaceResult:
    """Raise what ended the work before anything was done."""
    if result.error and not result.files:
        raise ProcscopeError(result.error)
    return result
