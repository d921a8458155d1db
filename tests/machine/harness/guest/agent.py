"""Runs inside a machine and does what the host asks for over a virtio-serial port.

Standard library only, and no import of the project: the file is copied into the machine alone.

A message is a header of two big-endian 32-bit numbers, the lengths of the two parts that follow:
a JSON object, and raw bytes. A request has `id` and `op`; the answer has the same `id`, and
either the result's fields or `error`. Each request is served by a thread of its own.
"""

import json
import os
import pwd
import select
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import IO, Any

PORT_NAME = "machine.agent"
HEADER = struct.Struct(">II")
SPOOL = "/var/tmp"
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
}

Fields = dict[str, Any]


class Child:
    """A started command whose output goes to unlinked files.

    Files and not pipes: a background process that keeps the output open delays nothing.
    """

    def __init__(self, request: Fields, stdin: bytes) -> None:
        self.stdout: IO[bytes] = tempfile.TemporaryFile(dir=SPOOL)
        self.stderr: IO[bytes] = tempfile.TemporaryFile(dir=SPOOL)
        user = request.get("user")
        account = pwd.getpwnam(user) if user else pwd.getpwuid(0)
        home = {"HOME": account.pw_dir, "USER": account.pw_name, "LOGNAME": account.pw_name}
        with tempfile.TemporaryFile(dir=SPOOL) as source:
            source.write(stdin)
            source.seek(0)
            self.process = subprocess.Popen(
                request["argv"],
                stdin=source,
                stdout=self.stdout,
                stderr=self.stderr,
                cwd=request.get("cwd") or account.pw_dir,
                env=ENVIRONMENT | home | (request.get("env") or {}),
                start_new_session=True,
                **_identity(account) if user else {},
            )
        self.pidfd = os.pidfd_open(self.process.pid)

    def wait(self, timeout_s: float | None) -> bool:
        """Whether the command has ended, at the latest after `timeout_s`."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        if not poll.poll(None if timeout_s is None else timeout_s * 1000):
            return False
        self.process.wait()
        return True

    def signal(self, number: int, *, group: bool) -> None:
        """Signal the command, or its process group; nothing if it has ended."""
        if self.process.poll() is not None and not group:
            return
        try:
            (os.killpg if group else os.kill)(self.process.pid, number)
        except ProcessLookupError:
            return

    def output(self, stdout_from: int = 0, stderr_from: int = 0) -> tuple[bytes, bytes]:
        """What the command wrote so far, from these offsets on."""
        return (_read_from(self.stdout, stdout_from), _read_from(self.stderr, stderr_from))

    def close(self) -> None:
        """Release the files."""
        for closable in (self.stdout, self.stderr):
            closable.close()
        os.close(self.pidfd)


def _identity(account: pwd.struct_passwd) -> Fields:
    groups = os.getgrouplist(account.pw_name, account.pw_gid)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": groups}


def _read_from(file: IO[bytes], offset: int) -> bytes:
    size = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), max(0, size - offset), offset)


class Agent:
    """Serves the requests that arrive on one port."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.write_lock = threading.Lock()
        self.children: dict[int, Child] = {}

    def serve(self) -> None:
        """Answer requests until the port is closed, which only the machine's end does."""
        self.send({"id": 0, "hello": os.uname().release}, b"")
        while True:
            lengths = HEADER.unpack(self.receive(HEADER.size))
            request = json.loads(self.receive(lengths[0]))
            payload = self.receive(lengths[1])
            threading.Thread(target=self.answer, args=(request, payload), daemon=True).start()

    def receive(self, size: int) -> bytes:
        """Exactly `size` bytes from the port."""
        parts = bytearray()
        while len(parts) < size:
            part = os.read(self.port, min(size - len(parts), 1 << 20))
            if not part:
                # No host is connected: it never is so for long.
                time.sleep(0.05)
            parts += part
        return bytes(parts)

    def send(self, fields: Fields, payload: bytes) -> None:
        """Write one message; messages of several threads do not mix."""
        text = json.dumps(fields).encode()
        message = memoryview(HEADER.pack(len(text), len(payload)) + text + payload)
        with self.write_lock:
            while message:
                message = message[os.write(self.port, message[: 1 << 15]) :]

    def answer(self, request: Fields, payload: bytes) -> None:
        """Do one request and send its result, or the error it failed with."""
        operation = getattr(self, f"op_{request['op']}")
        try:
            fields, answer = operation(request, payload)
        except Exception as error:  # noqa: BLE001 - everything is told to the host
            if not isinstance(error, OSError):
                traceback.print_exc()
            fields, answer = {"error": f"{type(error).__name__}: {error}"}, b""
        self.send({"id": request["id"], **fields}, answer)

    def op_spawn(self, request: Fields, payload: bytes) -> tuple[Fields, bytes]:
        """Start a command and give its pid as the handle for the operations below."""
        child = Child(request, payload)
        self.children[child.process.pid] = child
        return {"pid": child.process.pid}, b""

    def op_wait(self, request: Fields, _payload: bytes) -> tuple[Fields, bytes]:
        """Wait for a command; when its time is over, kill its process group if asked to.

        `status` is None for a command that still runs, and `timed_out` tells whether it was killed.
        """
        child = self.children[request["pid"]]
        ended = child.wait(request.get("timeout_s"))
        timed_out = not ended and bool(request.get("kill"))
        if timed_out:
            child.signal(signal.SIGKILL, group=True)
            child.wait(None)
        stdout, stderr = child.output(request.get("stdout_from", 0), request.get("stderr_from", 0))
        status = child.process.returncode
        if status is not None:
            del self.children[request["pid"]]
            child.close()
        fields = {"status": status, "timed_out": timed_out, "stdout_bytes": len(stdout)}
        return fields, stdout + stderr

    def op_run(self, request: Fields, payload: bytes) -> tuple[Fields, bytes]:
        """Start a command and wait for it, in one request."""
        started, _ = self.op_spawn(request, payload)
        return self.op_wait({**request, **started, "kill": True}, b"")

    def op_kill(self, request: Fields, _payload: bytes) -> tuple[Fields, bytes]:
        """Send a signal to a command or, with `group`, to its process group."""
        child = self.children.get(request["pid"])
        if child:
            child.signal(request["signal"], group=request["group"])
        return {}, b""

    def op_read(self, request: Fields, _payload: bytes) -> tuple[Fields, bytes]:
        """The content of a file."""
        return {}, Path(request["path"]).read_bytes()

    def op_write(self, request: Fields, payload: bytes) -> tuple[Fields, bytes]:
        """Write a file, or add to its end with `append`."""
        with open(request["path"], "ab" if request.get("append") else "wb") as file:
            file.write(payload)
        if "mode" in request:
            os.chmod(request["path"], request["mode"])
        return {}, b""

    def op_unpack(self, request: Fields, _payload: bytes) -> tuple[Fields, bytes]:
        """Unpack a tar file below a directory, and remove the tar file."""
        command = ["tar", "-C", request["directory"], "--no-same-owner", "-xf", request["tar"]]
        subprocess.run(command, check=True)
        os.unlink(request["tar"])
        return {}, b""

    def op_pack(self, request: Fields, _payload: bytes) -> tuple[Fields, bytes]:
        """A tar file of a directory's content or of one file, named by its last component."""
        path = Path(request["path"])
        with tempfile.TemporaryFile(dir=SPOOL) as file:
            with tarfile.open(fileobj=file, mode="w") as archive:
                archive.add(path, arcname="." if path.is_dir() else path.name)
            return {}, _read_from(file, 0)


def find_port() -> int:
    """Open the virtio-serial port that is named PORT_NAME."""
    while True:
        for name in Path("/sys/class/virtio-ports").glob("*/name"):
            if name.read_text().strip() == PORT_NAME:
                return os.open(f"/dev/{name.parent.name}", os.O_RDWR | os.O_CLOEXEC)
        time.sleep(0.02)


def name_disks() -> None:
    """Make /dev/disk/by-id/virtio-SERIAL, as udev would, for every disk with a serial."""
    directory = Path("/dev/disk/by-id")
    directory.mkdir(parents=True, exist_ok=True)
    for serial in Path("/sys/block").glob("vd*/serial"):
        link = directory / f"virtio-{serial.read_text().strip()}"
        if not link.is_symlink():
            link.symlink_to(f"../../{serial.parent.name}")


def enable_swap() -> None:
    """Use the disk with the serial `swap`, if there is one."""
    disk = Path("/dev/disk/by-id/virtio-swap")
    if disk.exists():
        for program in ("/sbin/mkswap", "/sbin/swapon"):
            subprocess.run([program, str(disk)], check=True, stdout=subprocess.DEVNULL)


def reap_forever() -> None:
    """Be process 1: collect every orphan. The machine stops when the agent has ended."""
    agent = os.fork()
    if agent == 0:
        return
    while True:
        pid, status = os.wait()
        if pid == agent:
            print(f"machine agent: ended with {os.waitstatus_to_exitcode(status)}", flush=True)
            subprocess.run(["/usr/bin/busybox", "poweroff", "-f"], check=False)


def main() -> None:
    """Prepare the machine and serve."""
    if "--process-one" in sys.argv:
        os.environ.update(ENVIRONMENT)
        reap_forever()
        os.setsid()
        shutil.rmtree("/run/systemd", ignore_errors=True)
    name_disks()
    enable_swap()
    Agent(find_port()).serve()


if __name__ == "__main__":
    main()
