"""One mount namespace, one child: what it is to do, and what it says it has done."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from typing import cast

from procscope.containers.container import Container
from procscope.errors import ProcscopeError
from procscope.inject.forked import Record, Tell, Told, run_forked
from procscope.inject.inside import DEAD, clone, ended, enter
from procscope.inject.model import FileResult, NamespaceResult, Outcome, Source, Wanted
from procscope.inject.namespaces import host_namespaces, is_member
from procscope.inject.plan import peer_groups, removable
from procscope.inject.work import Worker
from procscope.linux.mountinfo import read_mountinfo
from procscope.linux.processes import ProcessIdentity, open_process
from procscope.values import as_dict, frozen

AT_ONCE = 8
"""Namespaces that are worked on at the same time, so that one which hangs does not delay others."""
MAX_MOUNTS = 512
"""In one namespace: a container can make as many dead mounts as it likes."""


@frozen
class Job:
    """What one child does."""

    process: ProcessIdentity
    wanted: tuple[Wanted, ...]
    container: Container | None = None
    """The process has to be in it; None where that does not matter."""
    namespace: int | None = None
    """The mount namespace has to be this one; None where that does not matter."""
    detach: bool = False
    own_root: bool = False
    """Whether mount points are as the process sees them, and not as its namespace has them."""
    roots: frozenset[str] | None = None
    """What to detach; None for every file and folder that is served."""
    whole: bool = False
    """Whether mounts of all that the daemon serves are detached as well."""


def run_jobs(
    jobs: Sequence[Job], source: Source, proc: str, timeout_s: float
) -> tuple[NamespaceResult, ...]:
    """Do the jobs, several at a time; return their results in the same order.

    Raises ProcscopeError where the host's own namespaces cannot be told.
    """
    results: dict[int, NamespaceResult] = {}
    host = _Host(host_namespaces(proc), _host_peers(proc))
    todo = (functools.partial(_work, job, source, proc, host) for job in jobs)
    for index, told in run_forked(todo, timeout_s=timeout_s, at_once=AT_ONCE):
        results[index] = _result(jobs[index], told, timeout_s)
    return tuple(result for _, result in sorted(results.items()))


@frozen
class _Host:
    namespaces: frozenset[int]
    peer_groups: frozenset[str]


def _host_peers(proc: str) -> frozenset[str]:
    """The peer groups of the host's mounts, as pid 1 and as this process has them."""
    mounts = list(read_mountinfo(proc))
    try:
        mounts += read_mountinfo(proc, "1")
    except OSError:
        pass
    return peer_groups(mounts)


def _work(job: Job, source: Source, proc: str, host: _Host, tell: Tell) -> None:
    """Do a job, in a child. Raises ProcscopeError or OSError."""

    def tell_file(file: FileResult) -> None:
        tell(as_dict(file) | {"outcome": file.outcome.name})

    proc_fd = os.open(proc, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    pidfd = open_process(job.process, proc)
    if pidfd is None:
        raise ended(job.process)
    if job.container is not None and not is_member(job.container, job.process.pid, proc):
        raise ProcscopeError(f"process {job.process.pid} has left its container", hint="try again")
    trees = _clones(job, source)
    inside = enter(job.process, pidfd, proc_fd, host.namespaces, own_root=job.own_root)
    if job.namespace not in (None, inside.namespace):
        raise ProcscopeError(f"process {job.process.pid} has left its mount namespace")
    tell({"namespace": inside.namespace})
    worker = Worker(inside, source, host.peer_groups, trees)
    if job.detach:
        found = removable(inside.mounts(), source, job.roots, whole=job.whole)[:MAX_MOUNTS]
        worker.detach_all(found, tell_file)
    else:
        worker.attach_all(job.wanted, tell_file)
    tell({"end": True})


def _clones(job: Job, source: Source) -> Mapping[Wanted, int]:
    """Detached copies of what the daemon serves of the files. Raises ProcscopeError, OSError."""
    trees: dict[Wanted, int] = {}
    for wanted in job.wanted:
        try:
            trees[wanted] = clone(source, wanted.root)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            if error.errno not in DEAD:
                raise
            raise ProcscopeError(
                f"the daemon at {source.mountpoint} is dead", hint="start `procscope serve` again"
            ) from None
    return trees


def _result(job: Job, told: Told, timeout_s: float) -> NamespaceResult:
    files: list[FileResult] = []
    namespace, error, has_ended = 0, "", False
    for record in told.records:
        if "error" in record:
            error = str(ProcscopeError(str(record["error"]), hint=str(record["hint"])))
            has_ended = True
        elif "namespace" in record:
            namespace = cast("int", record["namespace"])
        elif "end" in record:
            has_ended = True
        else:
            files.append(_file_result(record))
    if told.timed_out:
        error = f"no end after {timeout_s:g} s: a FUSE daemon does not answer"
    elif not has_ended:
        error = "the process that worked on it was killed"
    return NamespaceResult(job.process, namespace, tuple(files), error)


def _file_result(record: Record) -> FileResult:
    return FileResult(
        root=str(record["root"]),
        mount_point=str(record["mount_point"]),
        outcome=Outcome[str(record["outcome"])],
        detail=str(record["detail"]),
    )
