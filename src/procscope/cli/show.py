"""`procscope show`: what a container sees, with no mount at all."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys

from procscope.cgroup.hierarchy import Hierarchies, discover
from procscope.cli.options import add_cpu_count, cpu_count
from procscope.containers.container import Container
from procscope.containers.identity import Identifier
from procscope.containers.listing import container_at, find_container
from procscope.daemon.config import DEFAULT_MOUNTPOINT, ServeConfig
from procscope.errors import ExitCode, ProcscopeError
from procscope.ids import Pid
from procscope.linux.mountinfo import read_mountinfo
from procscope.observe.host import HostFiles
from procscope.observe.observatory import Fallback, Observatory
from procscope.observe.records import RecordStore
from procscope.observe.registry import VIEWS
from procscope.views import cpu_sysfs

DESCRIPTION = """\
Prints a file as a container sees it, without a daemon and without a mount:

  procscope show meminfo                      this process's own container
  procscope show stat --pid 4711              the container that process 4711 is in
  procscope show loadavg --container web      a container by its name, or the start of its id
  procscope show online --cgroup /user.slice  any cgroup
  procscope show --all                        every file

Where a daemon serves, its records are read, so that the numbers continue the daemon's.
"""
_CPU_LISTS = ("online", "offline", "possible", "present")
_CPU_FOLDER = "sys/devices/system/cpu"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `show`."""
    parser.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help="one of " + ", ".join((*VIEWS, *_CPU_LISTS)) + "; with or without its folder",
    )
    parser.add_argument("--all", action="store_true", help="every file, with its name above it")
    whose = parser.add_mutually_exclusive_group()
    whose.add_argument("--pid", type=int, metavar="N", help="the container of this process")
    whose.add_argument("--container", metavar="ID|NAME", help="a container by id or name")
    whose.add_argument("--cgroup", metavar="PATH", help="a cgroup by its path")
    add_cpu_count(parser)


def run(args: argparse.Namespace) -> int:
    """Print the file or all files."""
    if args.all == bool(args.file):
        raise ProcscopeError(
            "show takes one FILE, or --all",
            hint="`procscope show meminfo`",
            exit_code=ExitCode.USAGE,
        )
    hierarchies = discover(read_mountinfo())
    container = _choose(args, hierarchies)
    failures: list[Fallback] = []
    observatory = Observatory(
        hierarchies,
        HostFiles(),
        _daemons_records(),
        cpu_count=cpu_count(args),
        on_fallback=failures.append,
    )
    names = _all_names() if args.all else [_file_name(args.file)]
    with contextlib.closing(observatory):
        for name in names:
            _show(observatory, name, container, with_name=args.all)
    for failure in failures:
        print(
            f"procscope: {failure.view} is the host's, the container's cannot be read: "
            f"{failure.error}",
            file=sys.stderr,
        )
    return ExitCode.FAILED if failures else ExitCode.OK


def _all_names() -> list[str]:
    return [f"proc/{name}" for name in VIEWS] + [f"{_CPU_FOLDER}/{name}" for name in _CPU_LISTS]


def _file_name(text: str) -> str:
    """Return the file's path in the mount. Raises ProcscopeError where there is none."""
    known = _all_names()
    wanted = text.strip("/")
    for candidate in (wanted, f"proc/{wanted}", f"{_CPU_FOLDER}/{wanted}"):
        if candidate in known:
            return candidate
    raise ProcscopeError(
        f"there is no view of {text!r}",
        hint="choose from " + ", ".join((*VIEWS, *_CPU_LISTS)),
        exit_code=ExitCode.USAGE,
    )


def _choose(args: argparse.Namespace, hierarchies: Hierarchies) -> Container | None:
    if args.container is not None:
        return find_container(hierarchies, args.container)
    if args.cgroup is not None:
        return container_at(hierarchies, args.cgroup)
    pid = os.getpid() if args.pid is None else args.pid
    if not os.path.exists(f"/proc/{pid}/cgroup"):
        raise ProcscopeError(f"there is no process {pid}", hint="see `ps -e` for those there are")
    identifier = Identifier()
    try:
        return identifier.container_of(Pid(pid))
    finally:
        identifier.close()


def _daemons_records() -> RecordStore | None:
    """The records of a daemon at the default mountpoint, where there is one and we may."""
    directory = ServeConfig(mountpoint=DEFAULT_MOUNTPOINT).records_directory
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        return None
    with contextlib.suppress(OSError):
        return RecordStore(directory)
    return None


def _show(
    observatory: Observatory, name: str, container: Container | None, *, with_name: bool
) -> None:
    try:
        content = _content(observatory, name, container)
    except OSError as error:
        if not with_name:
            raise ProcscopeError(
                f"/{name} cannot be read here: {error.strerror}",
                hint="use sudo"
                if isinstance(error, PermissionError)
                else "a container gets the same answer",
            ) from None
        content = f"{error.strerror}\n".encode()
    if with_name:
        sys.stdout.buffer.write(f"==> /{name} <==\n".encode())
    sys.stdout.buffer.write(content)
    if with_name:
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()


def _content(observatory: Observatory, name: str, container: Container | None) -> bytes:
    if not name.startswith(_CPU_FOLDER):
        return observatory.render(VIEWS[name.removeprefix("proc/")], container)
    content = observatory.host.read_sys(name.removeprefix("sys/"))
    if container is None:
        return content
    visible = observatory.visible_cpus(container)
    return cpu_sysfs.render(name.rpartition("/")[2], content, visible)
