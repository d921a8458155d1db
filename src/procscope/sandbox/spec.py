"""What `procscope run` was asked for, checked against the host before anything is made.

The checks and their bounds are those of `docker run` (`verifyPlatformContainerResources` in
moby's `daemon/daemon_unix.go`), but what Docker warns of or drops is an error here.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Sequence

from procscope.cgroup.model import Limit, Missing
from procscope.errors import ExitCode, ProcscopeError
from procscope.ids import CpuId
from procscope.linux.cpulist import format_cpulist, parse_cpulist
from procscope.units import (
    CPU_PERIOD_USEC,
    MIN_CPU_QUOTA_USEC,
    format_size,
    parse_cpus,
    parse_size,
    shorten,
)
from procscope.values import frozen

MIN_MEMORY_BYTES = 6 * 1024**2
"""Docker's minimum: below it a process hardly starts."""

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", re.ASCII)
_MAX_NAME_LENGTH = 128
_HOSTNAME = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?", re.ASCII)
_MAX_HOSTNAME_LENGTH = 64
"""`__NEW_UTS_LEN` in `<linux/utsname.h>`."""


@frozen
class Host:
    """What the limits are checked against."""

    memory_bytes: int
    cpus: tuple[CpuId, ...]
    """The CPUs that are online, sorted."""


@frozen
class RunOptions:
    """The options of `procscope run` as they were typed; None where one was left out."""

    command: Sequence[str]
    memory: str | None = None
    memory_swap: str | None = None
    cpus: str | None = None
    cpuset_cpus: str | None = None
    name: str | None = None
    hostname: str | None = None
    workdir: str | None = None
    env: Sequence[str] = ()


@frozen
class SandboxSpec:
    """A checked request for one sandbox. None: no such limit was asked for."""

    name: str
    command: tuple[str, ...]
    memory_bytes: int | None
    memory_swap_bytes: Limit | None
    """Memory and swap together, as Docker counts it; UNLIMITED for -1."""
    cpu_quota_usec: int | None
    """Per CPU_PERIOD_USEC."""
    cpuset: tuple[CpuId, ...] | None
    hostname: str | None
    workdir: str | None
    env: tuple[tuple[str, str], ...]
    """Variables to add to the caller's."""


def read_host(proc: str = "/proc", sys: str = "/sys") -> Host:
    """Return the memory and the CPUs of this machine. Raises ProcscopeError."""
    try:
        with open(f"{proc}/meminfo", encoding="ascii", errors="replace") as file:
            meminfo = dict(line.split(":", 1) for line in file if ":" in line)
        with open(f"{sys}/devices/system/cpu/online", encoding="ascii", errors="replace") as file:
            cpus = parse_cpulist(file.read())
        return Host(int(meminfo["MemTotal"].split()[0]) * 1024, cpus)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise ProcscopeError(
            f"cannot tell the memory and the CPUs of this machine: {error}",
            hint=f"{proc} and {sys} must be mounted",
            exit_code=ExitCode.RUN_FAILED,
        ) from error


def build_spec(options: RunOptions, host: Host) -> SandboxSpec:
    """Return the checked request. Raises ProcscopeError that names the option and what it takes."""
    if not options.command or not options.command[0]:
        raise _usage("no command", "name one after --, as in procscope run -m 256m -- free -m")
    _refuse_nul("the command", *options.command)
    memory_bytes = _memory(options.memory, host)
    return SandboxSpec(
        name=generated_name() if options.name is None else _checked_name(options.name),
        command=tuple(options.command),
        memory_bytes=memory_bytes,
        memory_swap_bytes=_memory_swap(options.memory_swap, memory_bytes),
        cpu_quota_usec=_cpu_quota(options.cpus, host),
        cpuset=_cpuset(options.cpuset_cpus, host),
        hostname=None if options.hostname is None else _checked_hostname(options.hostname),
        workdir=_checked_workdir(options.workdir),
        env=tuple(pair for text in options.env for pair in _variable(text)),
    )


def generated_name() -> str:
    """Return a name that no other sandbox has."""
    return f"run-{secrets.token_hex(6)}"


def _memory(text: str | None, host: Host) -> int | None:
    if text is None:
        return None
    size_bytes = _size("--memory", text)
    if size_bytes < MIN_MEMORY_BYTES:
        raise _usage(f"--memory {text} is too small", "the minimum is 6m")
    if size_bytes > host.memory_bytes:
        raise _usage(
            f"--memory {text} is more than this machine has",
            f"it has {format_size(host.memory_bytes)}",
        )
    return size_bytes


def _memory_swap(text: str | None, memory_bytes: int | None) -> Limit | None:
    """Return the limit of memory and swap together; twice the memory where none was given."""
    if text is None:
        return None if memory_bytes is None else 2 * memory_bytes
    if memory_bytes is None:
        raise _usage(
            f"--memory-swap {text} without --memory",
            "it is the sum of memory and swap: give --memory too",
        )
    if text == "-1":
        return Missing.UNLIMITED
    size_bytes = _size("--memory-swap", text)
    if size_bytes < memory_bytes:
        raise _usage(
            f"--memory-swap {text} is less than --memory",
            "it is the sum of memory and swap; use the same size for no swap, -1 for no limit",
        )
    return size_bytes


def _cpu_quota(text: str | None, host: Host) -> int | None:
    if text is None:
        return None
    quota_usec = parse_cpus(text)
    if not MIN_CPU_QUOTA_USEC <= quota_usec <= len(host.cpus) * CPU_PERIOD_USEC:
        raise _usage(
            f"--cpus {text} is out of range",
            f"use 0.01 to {len(host.cpus)}.00, as this machine has {len(host.cpus)} CPUs",
        )
    return quota_usec


def _cpuset(text: str | None, host: Host) -> tuple[CpuId, ...] | None:
    if text is None:
        return None
    available = format_cpulist(host.cpus)
    try:
        cpus = parse_cpulist(text)
    except ValueError:
        cpus = ()
    if not cpus:
        raise _usage(
            f"--cpuset-cpus: not a list of CPUs: {shorten(text)!r}",
            f"use ids and ranges of {available}, as in 0-1,3",
        )
    absent = sorted(set(cpus) - set(host.cpus))
    if absent:
        raise _usage(
            f"--cpuset-cpus {shorten(text)}: CPU {shorten(format_cpulist(absent))} is not online",
            f"available: {available}",
        )
    return cpus


def _size(option: str, text: str) -> int:
    """Return the bytes of an option's size, which must not be zero."""
    try:
        size_bytes = parse_size(text)
    except ProcscopeError as error:
        raise _usage(f"{option}: {error.message}", error.hint) from error
    if size_bytes == 0:
        raise _usage(f"{option} {text}: zero is no limit", "leave the option out for no limit")
    return size_bytes


def _checked_name(name: str) -> str:
    if len(name) > _MAX_NAME_LENGTH or _NAME.fullmatch(name) is None:
        raise _usage(
            f"--name: not a name: {shorten(name)!r}",
            "use up to 128 letters, digits, '_', '.' and '-', the first a letter or digit",
        )
    return name


def _checked_hostname(hostname: str) -> str:
    if len(hostname) > _MAX_HOSTNAME_LENGTH or _HOSTNAME.fullmatch(hostname) is None:
        raise _usage(
            f"--hostname: not a host name: {shorten(hostname)!r}",
            "use up to 64 letters, digits, '.' and '-', not '.' or '-' at the ends",
        )
    return hostname


def _checked_workdir(workdir: str | None) -> str | None:
    if workdir is None:
        return None
    _refuse_nul("--workdir", workdir)
    if not os.path.isabs(workdir):
        raise _usage(f"--workdir {shorten(workdir)!r} is not absolute", "start it with /")
    return workdir


def _variable(text: str) -> list[tuple[str, str]]:
    """Return `NAME=value` as a pair; a bare `NAME`, which is inherited anyway, as none."""
    _refuse_nul("--env", text)
    name, equals, value = text.partition("=")
    if not name:
        raise _usage(f"--env: no name in {shorten(text)!r}", "use NAME=value")
    return [(name, value)] if equals else []


def _refuse_nul(what: str, *texts: str) -> None:
    if any("\0" in text for text in texts):
        raise _usage(f"{what} holds a NUL byte", "no path or argument can")


def _usage(message: str, hint: str) -> ProcscopeError:
    return ProcscopeError(message, hint=hint, exit_code=ExitCode.RUN_FAILED)
