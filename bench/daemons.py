"""lxcfs and procscope, each on a mountpoint of its own, in a cgroup that counts its cost."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.accounting import Account
from bench.cgroups import accounted, processes

ROOT = Path(__file__).parents[1]
_PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class Daemon:
    """One that serves."""

    mountpoint: Path
    account: Account
    ready_after_ns: int
    """From exec(2) to its word that it is ready; for lxcfs, to the mount."""


@contextlib.contextmanager
def lxcfs(folder: Path) -> Iterator[Daemon]:
    """Start lxcfs with CPU views and load averages on, installed first if it is missing."""
    program = _find_lxcfs()
    mountpoint = folder / "lxcfs"
    command = [program, "-f", "-l", "--enable-cfs"]
    command += ["-p", str(folder / "lxcfs.pid")]
    if "--runtime-dir" in _help_of(program):
        # lxcfs 6. Before it, /run/lxcfs is its only one, with a mount that nobody else sees.
        (folder / "lxcfs-run").mkdir()
        command += ["--runtime-dir", str(folder / "lxcfs-run")]
    command.append(str(mountpoint))
    with _served(command, mountpoint, folder / "lxcfs.log", "proc/meminfo") as daemon:
        yield daemon


@contextlib.contextmanager
def procscope(
    folder: Path, *, name: str = "procscope", src: Path = ROOT / "src", options: Sequence[str] = ()
) -> Iterator[Daemon]:
    """Start `procscope serve` from the sources at `src`, with a run directory of its own."""
    mountpoint = folder / name
    _compile(folder, src)
    command = [*procscope_command(), "serve", str(mountpoint)]
    command += ["--run-directory", str(folder / f"{name}-run"), *options]
    address = folder / f"{name}.notify"
    environment = {**python_environment(folder, src), "NOTIFY_SOCKET": str(address)}
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener,
        contextlib.closing(listener),
    ):
        address.unlink(missing_ok=True)
        listener.bind(str(address))
        listener.settimeout(_PATIENCE_S)
        with _served(
            command, mountpoint, folder / f"{name}.log", "proc/meminfo", environment, listener
        ) as daemon:
            yield daemon


def procscope_command() -> list[str]:
    """Return what starts the command line; PYTHONPATH says from which sources."""
    return [sys.executable, "-m", "procscope"]


def python_environment(folder: Path, src: Path) -> dict[str, str]:
    """Return the variables with which the sources at `src` run as if they were installed.

    An installed package is compiled: into `folder`, whatever the caller's environment says of
    that, by a first run, and the following ones read what it wrote.
    """
    return {
        "PYTHONPATH": str(src),
        "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
        "PYTHONDONTWRITEBYTECODE": "",
    }


@functools.cache
def _compile(folder: Path, src: Path) -> None:
    """Compile what a daemon imports: one that did it by itself would keep memory of it."""
    modules = ("procscope.__main__", "procscope.cli.serve", "procscope.daemon.healing")
    code = "from procscope.cli.commands import build_parser; build_parser(lambda _: False)"
    subprocess.run(
        [sys.executable, "-c", f"{code}; import {', '.join(modules)}"],
        check=True,
        env={**os.environ, **python_environment(folder, src)},
    )


def version_of_lxcfs() -> str:
    """Return the version of the lxcfs that is measured."""
    command = [_find_lxcfs(), "--version"]
    output = subprocess.run(command, check=False, capture_output=True, text=True)
    return (output.stdout + output.stderr).strip().strip('"')


def _find_lxcfs() -> str:
    if shutil.which("lxcfs") is None and shutil.which("apt-get") is not None:
        command = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for words in (["update"], ["install", "-y", "--no-install-recommends", "lxcfs"]):
            subprocess.run([*command, *words], check=False, env=quiet, stdout=subprocess.DEVNULL)
    found = shutil.which("lxcfs")
    if found is None:
        raise SystemExit("bench: lxcfs is not installed, and could not be")
    return found


def _help_of(program: str) -> str:
    output = subprocess.run([program, "--help"], check=False, capture_output=True, text=True)
    return output.stdout + output.stderr


@contextlib.contextmanager
def _served(
    command: Sequence[str],
    mountpoint: Path,
    log: Path,
    witness: str,
    environment: dict[str, str] | None = None,
    listener: socket.socket | None = None,
) -> Iterator[Daemon]:
    """Run `command`; serving when `witness` is there, or when it says so to `listener`."""
    mountpoint.mkdir(exist_ok=True)
    with accounted() as cgroup, log.open("ab") as output:
        process, begun_ns = _start(command, cgroup, output.fileno(), environment or {})
        try:
            if listener is None:
                _wait_for(mountpoint / witness, process, log)
            else:
                _wait_for_word(listener, process, log)
            ready_after_ns = time.monotonic_ns() - begun_ns
            yield Daemon(mountpoint, Account(cgroup), ready_after_ns)
        finally:
            _end(process, cgroup, mountpoint)


def _start(
    command: Sequence[str], cgroup: Path, output: int, environment: dict[str, str]
) -> tuple[subprocess.Popen[bytes], int]:
    """Start it inside `cgroup`, by a shell that enters it and becomes the command when told to.

    To enter a cgroup may take as long as a small program's start.
    """
    enter = f'echo 0 > "{cgroup}/cgroup.procs" && read -r _ && exec "$@" </dev/null'
    process = subprocess.Popen(
        ["/bin/sh", "-c", enter, "sh", *command],
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
    )
    while process.pid not in processes(cgroup) and process.poll() is None:
        time.sleep(0.001)
    begun_ns = time.monotonic_ns()
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError), process.stdin as told:
            told.write(b"\n")
    return process, begun_ns


def _wait_for(path: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise SystemExit(log.read_text())
        time.sleep(0.002)


def _wait_for_word(listener: socket.socket, process: subprocess.Popen[bytes], log: Path) -> None:
    try:
        while b"READY=1" not in listener.recv(4096).split(b"\n"):
            pass
    except TimeoutError:
        process.kill()
        raise SystemExit(log.read_text()) from None


def _end(process: subprocess.Popen[bytes], cgroup: Path, mountpoint: Path) -> None:
    """End a daemon and all its processes, a keeper included, and take its mount away."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_PATIENCE_S)
    subprocess.run(["umount", "--lazy", str(mountpoint)], check=False, stderr=subprocess.DEVNULL)
    for pid in processes(cgroup):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
