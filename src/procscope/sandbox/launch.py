"""The launcher: what `procscope run` does from the checked request to the exit code.

The order matters. A daemon that is brought up for this run mounts inside the launcher's mount
namespace (without root: its user namespace), where nobody else sees it and nothing outlives it,
but it must stay in the host's PID namespace to see its readers. So: mount namespace, views, cgroup,
and only then the PID namespace and its init.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from procscope.errors import ExitCode, ProcscopeError
from procscope.sandbox import delegation, namespaces, signals
from procscope.sandbox.cgroups import CgroupSite, SandboxCgroup
from procscope.sandbox.delegation import NoSite
from procscope.sandbox.init import InitArguments, run_init
from procscope.sandbox.report import ReportPipe, open_report_pipe
from procscope.sandbox.signals import SignalState
from procscope.sandbox.spec import SandboxSpec
from procscope.sandbox.terminal import job_control
from procscope.tree.sources import Pinned
from procscope.units import format_size
from procscope.values import frozen

ViewsProvider = Callable[[], AbstractContextManager[str]]
"""Gives the mount point of the views for as long as its context lasts."""

Warn = Callable[[str], None]
"""Tells the user one line."""


@frozen
class Privileges:
    """What the caller may do, found out before anything is changed."""

    is_root: bool
    site: CgroupSite | NoSite


def find_privileges(argv: tuple[str, ...]) -> Privileges:
    """Return what this process may do.

    Without root and without a delegated cgroup, the command `argv` of procscope is started again
    in a scope of the user's service manager, if there is one; this does not return then.
    Raises ProcscopeError.
    """
    try:
        if namespaces.can_unshare():
            return Privileges(True, delegation.root_site())
        site = delegation.delegated_site()
        if isinstance(site, NoSite):
            delegation.reexec_in_scope(argv, os.environ)
        os.environ.pop(delegation.IN_SCOPE, None)
        return Privileges(False, site)
    except OSError as error:
        raise ProcscopeError(
            f"cannot find out about cgroups: {error}", exit_code=ExitCode.RUN_FAILED
        ) from error


def run_sandbox(
    spec: SandboxSpec,
    privileges: Privileges,
    views: ViewsProvider,
    warn: Warn,
    *,
    pinned: Pinned = Pinned.NONE,
) -> int:
    """Run the command of `spec` in a sandbox and return its exit code, 128 + signal if killed.

    `pinned` says which views are taken from the pinned tree.
    Raises ProcscopeError, with the exit code to end with, where the command was not started.
    The calling process changes its namespaces and should end soon.
    """
    if privileges.is_root:
        namespaces.enter_mount_namespace()
    else:
        namespaces.enter_user_namespace()
    with (
        views() as mount_point,
        job_control() as job,
        _signals_blocked() as state,
        _cgroup(spec, privileges, warn) as cgroup,
    ):
        code = _run_init_in(cgroup, InitArguments(spec, mount_point, state, job, pinned))
        _tell_of_oom(spec, cgroup, warn)
        return code


@contextmanager
def _cgroup(
    spec: SandboxSpec, privileges: Privileges, warn: Warn
) -> Iterator[SandboxCgroup | None]:
    """Give the sandbox's cgroup, None where there can be none, and remove it."""
    if isinstance(privileges.site, NoSite):
        limits = _limits_asked_for(spec)
        if limits:
            warn(f"not limited: {', '.join(limits)}: {privileges.site.reason}")
        else:
            warn(f"no cgroup of its own: {privileges.site.reason}")
        yield None
        return
    cgroup = privileges.site.create(spec)
    try:
        for reason in cgroup.unlimited:
            if privileges.is_root:
                raise ProcscopeError(f"cannot limit {reason}", exit_code=ExitCode.RUN_FAILED)
            warn(f"not limited: {reason}")
        yield cgroup
    finally:
        cgroup.remove()


def _run_init_in(cgroup: SandboxCgroup | None, arguments: InitArguments) -> int:
    """Start init in the cgroup, wait for it, and return its exit code."""
    job = arguments.job
    report = open_report_pipe()
    go, ready = os.pipe()
    # The garbage collector would otherwise write to, and so copy, what init shares with us.
    gc.collect()
    gc.freeze()
    with namespaces.children_in_pid_namespace():
        pid = os.fork()
        if pid == 0:
            run_init(arguments, report, go)
    os.close(go)
    try:
        try:
            if cgroup is not None:
                cgroup.add(pid)
            if job is not None:
                job.start(pid)
            os.write(ready, b"g")
        finally:
            os.close(ready)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    handlers = {} if job is None else job.handlers(pid)
    status = signals.forward_until(arguments.signals, pid, lambda: _reap(pid), handlers)
    _raise_reported(report)
    return signals.exit_code(status)


def _raise_reported(report: ReportPipe) -> None:
    """Raise what init or the command's process had to say."""
    os.close(report.writer)
    try:
        error = report.receive()
    finally:
        os.close(report.reader)
    if error is not None:
        raise error


def _reap(pid: int) -> int | None:
    """Return the wait status of this child alone: others are the daemon's."""
    reaped, status = os.waitpid(pid, os.WNOHANG)
    return status if reaped else None


@contextmanager
def _signals_blocked() -> Iterator[SignalState]:
    state = signals.block()
    try:
        yield state
    finally:
        signals.restore(state)


def _tell_of_oom(spec: SandboxSpec, cgroup: SandboxCgroup | None, warn: Warn) -> None:
    kills = 0 if cgroup is None else cgroup.oom_kills()
    if kills and spec.memory_bytes is not None:
        warn(
            f"the kernel killed {kills} of its processes for lack of memory: "
            f"the limit is {format_size(spec.memory_bytes)}"
        )


def _limits_asked_for(spec: SandboxSpec) -> list[str]:
    return [
        option
        for option, value in (
            ("--memory", spec.memory_bytes),
            ("--cpus", spec.cpu_quota_usec),
            ("--cpuset-cpus", spec.cpuset),
        )
        if value is not None
    ]
