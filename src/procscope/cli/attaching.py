"""What `attach` and `detach` have in common: which containers, which daemon, and the report."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator

from procscope.cgroup.hierarchy import discover
from procscope.cli.serve import parse_files
from procscope.containers.container import Container
from procscope.containers.listing import find_container, list_containers
from procscope.containers.names import names_of
from procscope.daemon.config import DEFAULT_MOUNTPOINT, ServeConfig
from procscope.daemon.healing import source_of
from procscope.daemon.mountpoint import mounted_at
from procscope.errors import ExitCode, ProcscopeError
from procscope.inject.model import NamespaceResult, Outcome, Source
from procscope.inject.namespaces import NoNamespace, process_of
from procscope.linux.mountinfo import read_mountinfo
from procscope.linux.processes import ProcessIdentity, identity_of
from procscope.values import as_dict, frozen


@frozen
class Chosen:
    """One container that was chosen, and by which process it is entered."""

    label: str
    process: ProcessIdentity
    container: Container | None


Work = Callable[[Chosen, Source], NamespaceResult]


def add_arguments(parser: argparse.ArgumentParser, *, files_help: str) -> None:
    """Add the options that choose containers, files and the daemon."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--container", metavar="ID|NAME", help="a container by id or name")
    which.add_argument("--pid", type=int, metavar="N", help="the container of this process")
    which.add_argument(
        "--all", action="store_true", help="every container of a known runtime that runs"
    )
    parser.add_argument("--files", metavar="LIST", default="", help=files_help)
    parser.add_argument(
        "--mountpoint",
        metavar="DIR",
        default=DEFAULT_MOUNTPOINT,
        help="where the daemon serves (default %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace, work: Work, *, needs_daemon: bool) -> int:
    """Do the work for each container that was chosen, and print what became of it."""
    if os.geteuid() != 0:
        raise ProcscopeError(
            f"{args.procscope_command} needs root to enter containers", hint="use sudo"
        )
    source = _source(args.mountpoint, needs_daemon=needs_daemon)
    done: list[tuple[Chosen, NamespaceResult]] = []
    errors: list[str] = []
    for chosen in _chosen(args):
        try:
            done.append((chosen, work(chosen, source)))
        except ProcscopeError as error:
            if not args.all:
                raise
            errors.append(f"{chosen.label}: {error}")
    if args.json:
        _print_json(done)
    else:
        _print(done, every_file=bool(args.files))
    errors += [f"{chosen.label}: {result.error}" for chosen, result in done if result.error]
    for line in errors:
        print(f"procscope: {line}", file=sys.stderr)
    failed = bool(errors) or any(result.failed for _, result in done)
    return ExitCode.FAILED if failed else ExitCode.OK


def chosen_files(args: argparse.Namespace) -> tuple[str, ...]:
    """Return the files that `--files` names. Raises ProcscopeError where one is not served."""
    return parse_files(args.files)


def _source(mountpoint: str, *, needs_daemon: bool) -> Source:
    """The daemon; without one, what was left by it can still be taken away."""
    mountpoint = os.path.realpath(mountpoint)
    mount = mounted_at(mountpoint)
    config = ServeConfig(mountpoint=mountpoint)
    pinned = mounted_at(config.pinned_mountpoint)
    source = source_of(
        config,
        mount.device if mount is not None else "",
        pinned.device if pinned is not None else "",
    )
    if needs_daemon and (mount is None or not source.owns(mount)):
        raise ProcscopeError(
            f"no daemon serves at {mountpoint}",
            hint="start `procscope serve`, or name its place with --mountpoint",
        )
    return source


def _chosen(args: argparse.Namespace) -> Iterator[Chosen]:
    if args.pid is not None:
        process = identity_of(args.pid) if args.pid > 0 else None
        if process is None:
            raise ProcscopeError(
                f"there is no process {args.pid}", hint="see `ps -e` for those there are"
            )
        yield Chosen(f"process {args.pid}", process, None)
        return
    hierarchies = discover(read_mountinfo())
    if args.container is not None:
        container = find_container(hierarchies, args.container)
        yield Chosen(args.container, process_of(hierarchies, container), container)
        return
    for container in list_containers(hierarchies):
        try:
            process = process_of(hierarchies, container)
        except NoNamespace:
            # Nothing of it runs, or it shows its processes the host's own files on purpose.
            continue
        yield Chosen(_label(container), process, container)


def _label(container: Container) -> str:
    return next(iter(names_of(container)), container.id[:12])


def _print_json(done: list[tuple[Chosen, NamespaceResult]]) -> None:
    rows = [
        {
            "container": chosen.container.id if chosen.container is not None else None,
            "name": chosen.label,
            "pid": result.process.pid,
            "mount_namespace": result.namespace,
            "error": result.error,
            "files": [as_dict(file) | {"outcome": file.outcome.value} for file in result.files],
        }
        for chosen, result in done
    ]
    print(json.dumps(rows, indent=2))


def _print(done: list[tuple[Chosen, NamespaceResult]], *, every_file: bool) -> None:
    """Print a line for each file; one that the kernel does not have only where it was asked for."""
    for chosen, result in done:
        lines = [
            f"{file.mount_point} {file.outcome.value}" + (f": {file.detail}" if file.detail else "")
            for file in result.files
            if every_file or file.outcome is not Outcome.NOT_THERE
        ]
        for line in lines or ["nothing to do"]:
            text = f"{chosen.label}: {line}"
            print(text if text.isprintable() else ascii(text)[1:-1])
