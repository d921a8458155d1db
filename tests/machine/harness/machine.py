"""A booted machine, as tests use it."""

import io
import os
import signal as signals
import subprocess
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.machine.harness.channel import Answer, Channel
from tests.machine.harness.emulator import emulator
from tests.machine.harness.errors import (
    CommandFailedError,
    CommandTimeoutError,
    MachineError,
    MachineUnavailableError,
)
from tests.machine.harness.image import root_image
from tests.machine.harness.initramfs import initramfs
from tests.machine.harness.kernel import debian_kernel
from tests.machine.harness.packages import ensure_host_packages
from tests.machine.harness.qemu import BootFiles, Qemu
from tests.machine.harness.spec import MachineSpec

_CHUNK_BYTES = 1 << 20
# An answer is late by this much only if the machine hangs.
_ANSWER_MARGIN_S = 60.0
_BOOT_TIMEOUT_S = 180.0
_CONSOLE_TAIL = 4000
_NEVER_COPIED = {"__pycache__", ".git", ".venv", ".hypothesis", ".mypy_cache", ".ruff_cache"}


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that has ended; the status is the negated signal number if one killed it."""

    args: tuple[str, ...]
    status: int
    stdout: str
    stderr: str


class Process:
    """A command that runs in the background of a machine."""

    def __init__(self, machine: "Machine", args: tuple[str, ...], pid: int) -> None:
        self._machine = machine
        self.args = args
        self.pid = pid
        self._stdout = bytearray()
        self._stderr = bytearray()
        self._status: int | None = None

    def poll(self, wait_s: float = 0) -> int | None:
        """The exit status, or None while the command runs; waits at most `wait_s`."""
        if self._status is None:
            self._collect(wait_s, kill=False)
        return self._status

    def wait(self, timeout_s: float = 60) -> Completed:
        """Wait for the end. After `timeout_s`, kill the command and raise CommandTimeoutError."""
        if self._status is None and self._collect(timeout_s, kill=True):
            raise CommandTimeoutError(self._machine.report(self._completed(), "timed out"))
        return self._completed()

    def kill(self, signal: signals.Signals = signals.SIGTERM, *, group: bool = True) -> None:
        """Signal the command's process group, or the command alone."""
        self._machine.ask("kill", {"pid": self.pid, "signal": int(signal), "group": group})

    @property
    def stdout(self) -> str:
        """What was written to standard output up to the last poll or wait."""
        return self._stdout.decode(errors="replace")

    @property
    def stderr(self) -> str:
        """What was written to standard error up to the last poll or wait."""
        return self._stderr.decode(errors="replace")

    def _collect(self, timeout_s: float, *, kill: bool) -> bool:
        seen = {"stdout_from": len(self._stdout), "stderr_from": len(self._stderr)}
        fields = {"pid": self.pid, "timeout_s": timeout_s, "kill": kill, **seen}
        answer = self._machine.ask("wait", fields, timeout_s=timeout_s + _ANSWER_MARGIN_S)
        self._stdout += answer.payload[: answer.fields["stdout_bytes"]]
        self._stderr += answer.payload[answer.fields["stdout_bytes"] :]
        self._status = answer.fields["status"]
        return bool(answer.fields["timed_out"])

    def _completed(self) -> Completed:
        status = self._status if self._status is not None else -1
        return Completed(self.args, status, self.stdout, self.stderr)


class Machine:
    """A machine that runs from `with` until the end of the block.

    Raises MachineUnavailableError if this host cannot build or boot it, and MachineError with the
    console's last lines if it does not come up.
    """

    def __init__(self, spec: MachineSpec | None = None, *, terminal: bool = False) -> None:
        self.spec = spec or MachineSpec()
        self.boot_seconds = 0.0
        self.kernel_release = ""
        self._with_terminal = terminal
        self._qemu: Qemu | None = None
        self._channel: Channel | None = None

    def __enter__(self) -> "Machine":
        files = boot_files(self.spec)
        started = time.monotonic()
        self._qemu = Qemu(self.spec, files, terminal=self._with_terminal)
        self._channel = Channel(self._qemu.agent)
        try:
            self.kernel_release = self._channel.wait_ready(_BOOT_TIMEOUT_S)
        except BaseException as error:
            console = self.console()
            self.__exit__(None, None, None)
            if isinstance(error, MachineError):
                raise MachineError(f"boot failed: {error}\n{console[-_CONSOLE_TAIL:]}") from None
            raise
        self.boot_seconds = time.monotonic() - started
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._channel:
            self._channel.close()
            self._channel = None
        if self._qemu:
            self._qemu.stop()
            self._qemu = None

    @property
    def qemu(self) -> Qemu:
        """The qemu of the running machine."""
        if self._qemu is None:
            raise MachineError("the machine is not running")
        return self._qemu

    def console(self) -> str:
        """Everything that was printed on the machine's console."""
        return self.qemu.console_text()

    def ask(
        self, op: str, fields: dict[str, Any], payload: bytes = b"", timeout_s: float = 120
    ) -> Answer:
        """Send the agent one request."""
        if self._channel is None:
            raise MachineError("the machine is not running")
        return self._channel.request(op, fields, payload, timeout_s=timeout_s)

    def spawn(
        self,
        args: Sequence[str] | str,
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        stdin: str | bytes = b"",
    ) -> Process:
        """Start a command in the background; a string is a command line for /bin/sh.

        Raises MachineError if there is no such program.
        """
        words = ("/bin/sh", "-c", args) if isinstance(args, str) else tuple(args)
        fields = {"argv": words, "cwd": cwd, "env": dict(env or {}), "user": user}
        payload = stdin.encode() if isinstance(stdin, str) else stdin
        try:
            answer = self.ask("spawn", fields, payload)
        except MachineError as error:
            raise MachineError(f"{words}: {error}") from None
        return Process(self, words, answer.fields["pid"])

    def run(
        self,
        args: Sequence[str] | str,
        *,
        timeout_s: float = 60,
        check: bool = True,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        stdin: str | bytes = b"",
    ) -> Completed:
        """Run a command and wait for it; a string is a command line for /bin/sh.

        Raises CommandTimeoutError when it takes longer (it is killed then), and with `check`
        CommandFailedError when its status is not 0.
        """
        process = self.spawn(args, cwd=cwd, env=env, user=user, stdin=stdin)
        done = process.wait(timeout_s)
        if check and done.status != 0:
            raise CommandFailedError(self.report(done, f"status {done.status}"))
        return done

    def read_file(self, path: str) -> bytes:
        """The content of a file in the machine."""
        return self.ask("read", {"path": path}).payload

    def write_file(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        """Write a file in the machine; its directory must exist."""
        data = content.encode() if isinstance(content, str) else content
        for start in range(0, max(len(data), 1), _CHUNK_BYTES):
            chunk = data[start : start + _CHUNK_BYTES]
            self.ask("write", {"path": path, "append": start > 0, "mode": mode}, chunk)

    def copy_in(self, source: Path, guest_path: str) -> None:
        """Copy a directory's content, or one file, to `guest_path`; caches stay behind."""
        if source.is_file():
            self.run(["mkdir", "-p", os.path.dirname(guest_path)])
            self.write_file(guest_path, source.read_bytes(), source.stat().st_mode & 0o7777)
            return
        if not source.is_dir():
            raise MachineError(f"{source} is not there to be copied into the machine")
        self.run(["mkdir", "-p", guest_path])
        archive = f"/var/tmp/copy-in-{time.monotonic_ns()}.tar"
        self.write_file(archive, _packed(source))
        self.ask("unpack", {"tar": archive, "directory": guest_path})

    def copy_out(self, guest_path: str, target: Path) -> None:
        """Copy a directory's content, or one file, out of the machine into directory `target`."""
        answer = self.ask("pack", {"path": guest_path})
        target.mkdir(parents=True, exist_ok=True)
        command = ["tar", "-C", str(target), "--no-same-owner", "-xf", "-"]
        subprocess.run(command, input=answer.payload, check=True)

    def report(self, done: Completed, what: str) -> str:
        """The text of an error about a command: what it printed, and the console's last lines."""
        return (
            f"{' '.join(done.args)}: {what}\n--- stdout\n{done.stdout[-_CONSOLE_TAIL:]}"
            f"\n--- stderr\n{done.stderr[-_CONSOLE_TAIL:]}"
            f"\n--- console\n{self.console()[-_CONSOLE_TAIL // 2 :]}"
        )


def boot_files(spec: MachineSpec) -> BootFiles:
    """The cached files that this machine boots from, built if need be."""
    ensure_host_packages(build=False)
    root = root_image(spec.suite, spec.packages)
    kernel = debian_kernel(spec.kernel_suite or spec.suite)
    busybox = root.parent / "busybox"
    if not busybox.is_file():
        raise MachineUnavailableError(f"{busybox} is missing: remove {root.parent} and try again")
    return BootFiles(
        emulator(), kernel.vmlinuz, initramfs(kernel, busybox), root, kernel.modules_image
    )


def _packed(source: Path) -> bytes:
    def wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if os.path.basename(member.name) in _NEVER_COPIED else member

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(source, arcname=".", filter=wanted)
    return buffer.getvalue()
