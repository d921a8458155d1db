"""What a hostile container may try on files of the mount, as functions that agents run."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import signal
import socket
import stat
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from procscope.linux import syscalls
from tests.integration import agents
from tests.integration.agents import Agent, agent
from tests.integration.cgroups import Group

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
_MAP_FAILED = ctypes.c_void_p(-1).value
FS_IOC_SETFLAGS = 0x40086602
RENAME_EXCHANGE = 2
FIRST_ID, IDS = 100_000, 65_536
_MAP = f"0 {FIRST_ID} {IDS}\n"


def check(result: int) -> int:
    """The result of a libc function that sets errno."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


@contextmanager
def user_namespace_root(group: Group, flags: int = 0) -> Iterator[Agent]:
    """A process that is root, with every capability, in a user namespace of its own."""
    with agent(group) as one:
        one.call(syscalls.unshare, syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS | flags)
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{one.pid}/{name}").write_text(_MAP)
        one.call(os.setresgid, 0, 0, 0)
        one.call(os.setresuid, 0, 0, 0)
        yield one


@contextmanager
def closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def errno_of(attempt: Callable[[], object]) -> int:
    """0 where an attempt went through."""
    try:
        attempt()
    except OSError as error:
        return error.errno or -1
    return 0


def _open(path: str, flags: int) -> None:
    os.close(os.open(path, flags | os.O_CLOEXEC, 0o666))


def _reopen(path: str) -> None:
    """O_PATH needs no permission; /proc/self/fd opens it a second time."""
    with closing(os.open(path, os.O_PATH | os.O_CLOEXEC)) as descriptor:
        _open(f"/proc/self/fd/{descriptor}", os.O_RDWR)


def _with_reader(path: str, use: Callable[[int], object]) -> None:
    with closing(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)) as descriptor:
        use(descriptor)


def _map_shared(descriptor: int) -> None:
    # Not by the module, which refuses by itself what is longer than the file.
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    address = libc.mmap(None, 4096, protection, mmap.MAP_SHARED, descriptor, ctypes.c_long(0))
    if address != _MAP_FAILED:
        libc.munmap(ctypes.c_void_p(address), 4096)
        return
    check(-1)


def _fallocate(descriptor: int) -> None:
    check(libc.fallocate(descriptor, 0, ctypes.c_long(0), ctypes.c_long(4096)))


def _swap(path: str, folder: str) -> None:
    check(libc.renameat2(-100, path.encode(), -100, f"{folder}/x".encode(), RENAME_EXCHANGE))


def _copy_into(path: str) -> None:
    """As copy_file_range(2) checks: the target must be open for writing."""
    with (
        closing(os.memfd_create("source")) as source,
        closing(os.open(path, os.O_RDONLY)) as target,
    ):
        os.write(source, b"1\n")
        os.copy_file_range(source, target, 2)


def changes_of_a_node(path: str) -> Mapping[str, int]:
    """Try every system call that changes a file or folder; return the errno of each, 0 if it went.

    What opens for writing is not written to: if that is possible, it is bad enough.
    """
    folder = os.path.dirname(path)
    attempts: dict[str, Callable[[], object]] = {
        "O_WRONLY": lambda: _open(path, os.O_WRONLY),
        "O_RDWR": lambda: _open(path, os.O_RDWR),
        "O_TRUNC": lambda: _open(path, os.O_RDONLY | os.O_TRUNC),
        "O_APPEND": lambda: _open(path, os.O_WRONLY | os.O_APPEND),
        "O_CREAT": lambda: _open(f"{folder}/x", os.O_RDWR | os.O_CREAT | os.O_EXCL),
        "O_CREAT of it": lambda: _open(path, os.O_RDWR | os.O_CREAT),
        "O_TMPFILE": lambda: _open(folder, os.O_RDWR | os.O_TMPFILE),
        "O_PATH, then O_RDWR": lambda: _reopen(path),
        "truncate": lambda: os.truncate(path, 0),
        "chmod": lambda: os.chmod(path, 0o777),
        "chown": lambda: os.chown(path, 1, 1),
        "lchown": lambda: os.lchown(path, 1, 1),
        "utime": lambda: os.utime(path, (1, 1)),
        "utime now": lambda: os.utime(path),
        "link": lambda: os.link(path, f"{folder}/x"),
        "symlink": lambda: os.symlink("/etc/passwd", f"{folder}/x"),
        "unlink": lambda: os.unlink(path),
        "rmdir": lambda: os.rmdir(path),
        "mkdir": lambda: os.mkdir(f"{folder}/x"),
        "mkfifo": lambda: os.mkfifo(f"{folder}/x"),
        "mknod": lambda: os.mknod(f"{folder}/x", stat.S_IFCHR | 0o666, os.makedev(1, 1)),
        "bind": lambda: _bind_socket(f"{folder}/x"),
        "rename": lambda: os.rename(path, f"{folder}/x"),
        "RENAME_EXCHANGE": lambda: _swap(path, folder),
        "setxattr user": lambda: os.setxattr(path, "user.x", b"1"),
        "setxattr trusted": lambda: os.setxattr(path, "trusted.x", b"1"),
        "setxattr security": lambda: os.setxattr(path, "security.x", b"1"),
        "removexattr": lambda: os.removexattr(path, "user.x"),
    }
    if stat.S_ISREG(os.lstat(path).st_mode) and os.access(path, os.R_OK):
        attempts |= {
            "FS_IOC_SETFLAGS": lambda: _with_reader(
                path, lambda fd: fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("l", 0x10))
            ),
            "fchmod": lambda: _with_reader(path, lambda fd: os.fchmod(fd, 0o777)),
            "ftruncate": lambda: _with_reader(path, lambda fd: os.ftruncate(fd, 0)),
            "fallocate": lambda: _with_reader(path, _fallocate),
            "write": lambda: _with_reader(path, lambda fd: os.write(fd, b"0")),
            "pwrite": lambda: _with_reader(path, lambda fd: os.pwrite(fd, b"0", 0)),
            "a shared mapping": lambda: _with_reader(path, _map_shared),
            "copy_file_range": lambda: _copy_into(path),
        }
    return {name: errno_of(attempt) for name, attempt in attempts.items()}


def _bind_socket(path: str) -> None:
    """A socket's name in the mount; the folder keeps it below the 108 bytes of an address."""
    with (
        socket.socket(socket.AF_UNIX) as one,
        closing(os.open(os.path.dirname(path), os.O_PATH)) as at,
    ):
        one.bind(f"/proc/self/fd/{at}/x")


def walk(top: str) -> list[str]:
    """The nodes below `top`."""
    found: list[str] = []
    for folder, folders, files in os.walk(top):
        found += [f"{folder}/{name}" for name in (*folders, *files)]
    return found


def changes_below(top: str) -> list[tuple[str, str, int]]:
    """Every attempt on every node: path, attempt, errno."""
    return [
        (path, name, number)
        for path in walk(top)
        for name, number in changes_of_a_node(path).items()
    ]


def bind_read_only(source: str, target: str) -> None:
    """What a runtime does with `-v SOURCE:TARGET:ro`."""
    syscalls.mount(source, target, None, syscalls.MS_BIND)
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC | syscalls.MS_RDONLY
    syscalls.mount(None, target, None, syscalls.MS_BIND | syscalls.MS_REMOUNT | flags)


def private_mounts() -> None:
    """A mount namespace of its own, from which nothing reaches the host's."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)


def remount_writable(target: str) -> None:
    """Take `ro`, `nosuid`, `nodev` and `noexec` off a bind mount."""
    syscalls.mount(None, target, None, syscalls.MS_BIND | syscalls.MS_REMOUNT)


def remount_superblock(target: str) -> None:
    """Change the options of the filesystem itself."""
    syscalls.mount(None, target, None, syscalls.MS_REMOUNT, "default_permissions")


class _FileHandle(ctypes.Structure):
    _fields_ = (
        ("handle_bytes", ctypes.c_uint),
        ("handle_type", ctypes.c_int),
        ("f_handle", ctypes.c_ubyte * 128),
    )


def file_handle(path: str) -> tuple[int, bytes]:
    """name_to_handle_at(2): type and bytes."""
    handle, mount_id = _FileHandle(128), ctypes.c_int()
    check(
        libc.name_to_handle_at(-100, path.encode(), ctypes.byref(handle), ctypes.byref(mount_id), 0)
    )
    return handle.handle_type, bytes(handle.f_handle[: handle.handle_bytes])


def read_by_handle(mount: str, kind: int, raw: bytes) -> bytes:
    """open_by_handle_at(2), and read to the end."""
    handle = _FileHandle(len(raw), kind)
    handle.f_handle[: len(raw)] = raw
    with closing(os.open(mount, os.O_RDONLY | os.O_DIRECTORY)) as at:
        opened = check(libc.open_by_handle_at(at, ctypes.byref(handle), os.O_RDONLY))
    with closing(opened):
        return os.read(opened, 1 << 20)


def take(pid: int, descriptor: int) -> int:
    """A copy of another process's descriptor, as if that one had sent it."""
    get = {"x86_64": 438}.get(os.uname().machine, 438)
    with closing(os.pidfd_open(pid)) as pidfd:
        return check(libc.syscall(get, pidfd, descriptor, 0))


def send_file(path: str) -> bytes:
    """The content as sendfile(2) copies it."""
    with closing(os.open(path, os.O_RDONLY)) as source, closing(os.memfd_create("copy")) as copy:
        size = os.fstat(source).st_size
        while os.sendfile(copy, source, None, max(size, 1 << 16)):
            pass
        return os.pread(copy, 1 << 20, 0)


def splice_file(path: str) -> bytes:
    """The content as splice(2) moves it through a pipe."""
    out, into = os.pipe()
    with closing(os.open(path, os.O_RDONLY)) as source, closing(out), closing(into):
        parts = []
        while os.splice(source, into, 1 << 15):
            parts.append(os.read(out, 1 << 16))
        return b"".join(parts)


def size_of(path: str) -> int:
    """st_size."""
    return os.stat(path).st_size


def take_lease(path: str) -> int:
    """A write lease: whoever else opens the file waits until it is given up."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def open_without_waiting(path: str) -> None:
    """Open; EWOULDBLOCK where somebody's lease would have to be waited for."""
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))


def watch_with_fanotify(path: str) -> int:
    """A group that is told of every open of `path`, with a descriptor of it."""
    group = check(libc.fanotify_init(0, os.O_RDONLY))
    add, fan_open = 1, 0x20
    check(libc.fanotify_mark(group, add, ctypes.c_uint64(fan_open), -100, path.encode()))
    return group


def read_of_fanotify(group: int) -> bytes:
    """What the first event's descriptor reads."""
    event = os.read(group, 24)
    (descriptor,) = struct.unpack_from("=i", event, 16)
    with closing(descriptor):
        return os.pread(descriptor, 1 << 16, 0)


def lookups(folder: str, names: list[bytes]) -> list[int]:
    """The errno of looking each name up, 0 where it is there."""
    return [agents.errno_of(os.lstat, os.fsencode(folder) + b"/" + name) for name in names]


def rename_task(name: bytes) -> None:
    """PR_SET_NAME, of any bytes."""
    with suppress(FileNotFoundError):
        Path("/proc/self/comm").write_bytes(name)
