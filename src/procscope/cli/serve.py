"""`procscope serve`: the daemon."""

from __future__ import annotations

import argparse
import os

from procscope.cli.options import add_cpu_count, add_mountpoint, add_run_directory, cpu_count
from procscope.daemon import logs
from procscope.daemon.config import (
    DEFAULT_DEADLINE_S,
    DEFAULT_FILES,
    DEFAULT_MOUNTPOINT,
    LXCFS_MOUNTPOINT,
    Keeping,
    ServeConfig,
    default_workers,
)
from procscope.daemon.inheritance import TRIAL_NAME, Inheritance
from procscope.daemon.supervisor import Supervisor
from procscope.errors import ProcscopeError

DESCRIPTION = f"""\
Mounts the files at MOUNTPOINT (default {DEFAULT_MOUNTPOINT}) and answers whoever reads them from
the reader's own container. Runs in the foreground and logs to stderr. Tells systemd when it is
ready (Type=notify). Ctrl-C or `procscope stop` ends it and unmounts. After SIGTERM, and after a
crash, its workers go on serving until it is started again, unless --no-keeper is given; SIGHUP or
`procscope reload` replaces it by the version that is installed now.

  procscope serve                     then: docker run $(procscope docker-args) -m 256m …
  procscope serve {LXCFS_MOUNTPOINT}      takes the place of lxcfs
"""
_MAX_WORKERS = 64
_MIN_DEADLINE_S = 0.5
_MAX_DEADLINE_S = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `serve`."""
    add_mountpoint(
        parser,
        DEFAULT_MOUNTPOINT,
        f"an empty directory; made if it is the default, or {LXCFS_MOUNTPOINT}",
    )
    add_serving_options(parser, idmapped_mounts=False)
    parser.add_argument(
        "--no-keeper",
        action="store_true",
        help="the mount ends with the daemon; unless given, the files are served on while it is "
        "restarted or upgraded, and after a crash",
    )


def add_serving_options(parser: argparse.ArgumentParser, *, idmapped_mounts: bool) -> None:
    """Add what `serve` and `agent` have in common; `idmapped_mounts` is unless told."""
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        default=default_workers(),
        help="processes that answer requests (default here: %(default)s)",
    )
    add_cpu_count(parser)
    parser.add_argument(
        "--files",
        metavar="LIST",
        default="",
        help="serve only these, separated by commas; every file unless given: "
        + ", ".join(DEFAULT_FILES),
    )
    parser.add_argument(
        "--context",
        metavar="LABEL",
        help="SELinux label of the files, for hosts that enforce it: "
        "system_u:object_r:container_file_t:s0",
    )
    parser.add_argument(
        "--idmapped-mounts",
        action=argparse.BooleanOptionalAction,
        default=idmapped_mounts,
        help="let runtimes mount the files into containers with a user namespace by an idmapped "
        "mount (Linux 6.12; Kubernetes with hostUsers: false); a mount that is there stays as it "
        f"is (default: {'yes' if idmapped_mounts else 'no, which makes a read cheaper'})",
    )
    add_run_directory(parser)
    parser.add_argument(
        "--deadline",
        type=float,
        metavar="SECONDS",
        default=DEFAULT_DEADLINE_S,
        help="a worker that does not answer a request for so long is killed, and another one "
        "answers it (default %(default)s)",
    )
    parser.add_argument("--debug", action="store_true", help="log every request and reply")


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop."""
    # The kernel names a mount by its path without links.
    config = config_of(
        args,
        os.path.realpath(args.mountpoint),
        keeper=Keeping.NONE if args.no_keeper else Keeping.OWN,
    )
    inherited = Inheritance.from_environment()
    if os.environ.pop(TRIAL_NAME, ""):
        from procscope.daemon import trial

        return trial.run(config, inherited)
    return Supervisor(config, inherited=inherited).run()


def config_of(
    args: argparse.Namespace,
    mountpoint: str,
    *,
    keeper: Keeping,
    yields: bool = False,
    makes_mountpoint: bool = False,
) -> ServeConfig:
    """Begin to log, and return what the options say. Raises ProcscopeError."""
    if not 1 <= args.workers <= _MAX_WORKERS:
        raise ProcscopeError(
            f"--workers {args.workers} is out of range", hint=f"give 1 to {_MAX_WORKERS}"
        )
    if not _MIN_DEADLINE_S <= args.deadline <= _MAX_DEADLINE_S:
        raise ProcscopeError(
            f"--deadline {args.deadline} is out of range",
            hint=f"give {_MIN_DEADLINE_S} to {_MAX_DEADLINE_S} seconds",
        )
    logs.configure(debug=args.debug)
    config = ServeConfig(
        mountpoint=mountpoint,
        workers=args.workers,
        cpu_count=cpu_count(args),
        files=parse_files(args.files),
        run_directory=os.path.realpath(args.run_directory),
        deadline_s=args.deadline,
        keeper=keeper,
        yields=yields,
        makes_mountpoint=makes_mountpoint,
        cares_for_containers=True,
        debug=args.debug,
        selinux_context=args.context,
        idmapped_mounts=args.idmapped_mounts,
    )
    if os.geteuid() != 0:
        raise ProcscopeError(
            f"{args.procscope_command} needs root to mount files for other users' containers",
            hint="use sudo; `procscope run` and `procscope show` work without",
        )
    return config


def parse_files(text: str) -> tuple[str, ...]:
    """Return the files that a list names; `meminfo` stands for `proc/meminfo`."""
    if not text:
        return DEFAULT_FILES
    chosen: list[str] = []
    for word in text.split(","):
        name = word.strip().strip("/")
        name = name if name in DEFAULT_FILES else f"proc/{name}"
        if name not in DEFAULT_FILES:
            raise ProcscopeError(
                f"there is no file {word.strip()!r} to serve",
                hint="choose from " + ", ".join(DEFAULT_FILES),
            )
        chosen.append(name)
    return tuple(chosen)
