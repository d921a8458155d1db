"""PID 1 of a sandbox: sets it up, starts the command, passes signals on, reaps, and ends with it.

A fork of the launcher that executes nothing: what it does not touch it shares with the launcher,
so that next to nothing is charged to the sandbox. It ends only by `os._exit`.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import socket
from collections.abc import Callable, Mapping
from typing import NoReturn

from procscope.errors import ExitCode, ProcscopeError
from procscope.linux import syscalls
from procscope.sandbox import mounts, signals
from procscope.sandbox.report import ReportPipe
from procscope.sandbox.signals import SignalState
from procscope.sandbox.spec import SandboxSpec
from procscope.sandbox.terminal import Job
from procscope.tree.sources import Pinned
from procscope.values import frozen

NAMESPACES = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC
"""What init leaves by itself; its PID namespace it is born in."""

_FIRST_FREE_FD = 3


@frozen
class InitArguments:
    """What the launcher has prepared for init."""

    spec: SandboxSpec
    views: str
    """Where the views are mounted."""
    signals: SignalState
    job: Job | None
    """Set where the sandbox has a process group of its own."""
    pinned: Pinned = Pinned.NONE
    """What is taken from the pinned tree."""


@frozen
class InitContext:
    """What init works with."""

    arguments: InitArguments
    report: ReportPipe
    go: int


def run_init(arguments: InitArguments, report: ReportPipe, go: int) -> NoReturn:
    """Be PID 1 until the command ends. Never returns and never raises.

    `go` is the end to read of a pipe: it has a byte when init is in its cgroup (and group), and
    ends when the launcher dies.
    """
    context = InitContext(arguments, report, go)
    _exit_with(context, _run)


def _exit_with(context: InitContext, body: Callable[[InitContext], int]) -> NoReturn:
    """End this process with what `body` returns; report what it raises."""
    code = int(ExitCode.RUN_FAILED)
    try:
        code = body(context)
    except ProcscopeError as error:
        context.report.send(error)
        code = error.exit_code
    except BaseException as error:  # noqa: BLE001  A fork must not fall back into the launcher.
        context.report.send(_failed(f"{type(error).__name__}: {error}"))
    finally:
        os._exit(code)


def _run(context: InitContext) -> int:
    gc.disable()
    # Without the launcher nobody would remove the cgroup or pass the status on.
    syscalls.set_pdeathsig(signal.SIGKILL)
    syscalls.set_name("procscope-init")
    job = context.arguments.job
    _close_all_but(context.go, context.report.writer, *(() if job is None else (job.tell_stop,)))
    if os.read(context.go, 1) == b"":
        return ExitCode.RUN_FAILED
    os.close(context.go)
    _set_up(context)
    command = os.fork()
    if command == 0:
        _exit_with(context, _execute)
    os.close(context.report.writer)
    _let_go_of_stdio()
    status = signals.forward_until(context.arguments.signals, command, lambda: _reap(command, job))
    return signals.exit_code(status)


def _set_up(context: InitContext) -> None:
    """Enter the namespaces and mount the views. Raises ProcscopeError."""
    try:
        syscalls.unshare(NAMESPACES)
        if context.arguments.spec.hostname is not None:
            socket.sethostname(context.arguments.spec.hostname)
        mounts.execute(mounts.namespace_plan())
        arguments = context.arguments
        mounts.execute(mounts.view_plan(arguments.views, pinned=arguments.pinned))
    except OSError as error:
        raise _failed(error.strerror or str(error)) from error


def _reap(command: int, job: Job | None) -> int | None:
    """Reap whatever has ended, and return the command's wait status if that was it.

    Tell the launcher where the command has stopped.
    """
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        if pid == 0:
            return None
        if pid != command:
            continue
        if not os.WIFSTOPPED(status):
            return status
        if job is not None:
            os.write(job.tell_stop, b"s")


def _execute(context: InitContext) -> NoReturn:
    """Become the command. Raises ProcscopeError with the exit code for why it cannot be."""
    spec = context.arguments.spec
    if spec.workdir is not None:
        try:
            os.chdir(spec.workdir)
        except OSError as error:
            raise _failed(f"--workdir {spec.workdir}: {error.strerror}") from error
    environment = os.environ | dict(spec.env)
    signals.restore_for_command(context.arguments.signals)
    try:
        os.execvpe(spec.command[0], spec.command, environment)
    except OSError as error:
        raise _not_executed(spec.command[0], environment, error) from error


def _not_executed(command: str, environment: Mapping[str, str], error: OSError) -> ProcscopeError:
    """Return 127 for a command that is not there and 126 for one that cannot be executed."""
    # A directory of PATH that may not be searched makes execve(2) say EACCES for what is nowhere.
    found = [path for path in _candidates(command, environment) if os.path.exists(path)]
    if not found:
        hint = "" if "/" in command else "it is in no directory of PATH"
        return ProcscopeError(
            f"{command}: command not found", hint=hint, exit_code=ExitCode.COMMAND_NOT_FOUND
        )
    hint = ""
    if error.errno == errno.ENOENT:
        return ProcscopeError(
            f"{command}: its interpreter is missing",
            hint=f"see the first line of {found[0]}, or the loader that file(1) names",
            exit_code=ExitCode.COMMAND_NOT_FOUND,
        )
    if error.errno == errno.ENOEXEC:
        hint = "a script needs a first line such as #!/bin/sh"
    elif error.errno == errno.EACCES and os.path.isfile(found[0]):
        hint = "chmod +x makes a file executable, unless its filesystem is mounted noexec"
    return ProcscopeError(
        f"{command}: cannot be executed: {error.strerror}",
        hint=hint,
        exit_code=ExitCode.COMMAND_NOT_EXECUTABLE,
    )


def _candidates(command: str, environment: Mapping[str, str]) -> list[str]:
    if "/" in command:
        return [command]
    return [os.path.join(folder, command) for folder in os.get_exec_path(environment)]


def _failed(message: str) -> ProcscopeError:
    return ProcscopeError(message, exit_code=ExitCode.RUN_FAILED)


def _close_all_but(*kept: int) -> None:
    """Close every descriptor but stdio and `kept`: the launcher's and the daemon's are not ours."""
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor < _FIRST_FREE_FD or descriptor in kept:
            continue
        try:
            os.close(descriptor)
        except OSError as error:
            if error.errno != errno.EBADF:  # The descriptor of the listing itself.
                raise


def _let_go_of_stdio() -> None:
    """Give the pipes on stdio to the command alone, so that their other ends see it close them."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in range(_FIRST_FREE_FD):
        os.dup2(null, descriptor)
    if null >= _FIRST_FREE_FD:
        os.close(null)
