"""Every way of using a file that programs have, and odd ones: so that every request is sent."""

from __future__ import annotations

import ctypes
import fcntl
import itertools
import mmap
import os
import select
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

from tests.integration.attacks import changes_below, check, closing, libc, walk

ODD_OFFSETS = (0, 1, 4095, 4096, 1 << 31, (1 << 63) - 1)
ODD_SIZES = (0, 1, 7, 4096, 65536, 1 << 20, 1 << 22)
STATX_MASKS = (0, 0x7FF, 0xFFF, 0x1FFF, 0x20000000)
STATX_FLAGS = (0, 0x2000, 0x4000, 0x100, 0x1000)
ODD_NAMES = (b"x" * 255, b"x" * 256, b"\xff\xfe\x80", b"a\nb", b" ", b"\x01", b"cpu999999999999")
IOCTLS = (0, 0x5401, 0x80086601, 0x40086602, 0x801C581F, 0xC020660B, 0x8008660B, 0xFFFFFFFF)


def use_everything(top: str) -> int:
    """Do all of it on every view, and on one of eight nodes of the CPUs; return how many calls."""
    count = 0
    views = [path for path in walk(top) if path.startswith(f"{top}/proc")]
    for path in (*views, *walk(f"{top}/sys")[::8]):
        for call in itertools.chain(_by_name(path), _by_descriptor(path)):
            # Most of it is refused. What is looked at is what the kernel sends for it.
            with suppress(OSError, ValueError, OverflowError):
                call()
            count += 1
    return count + len(changes_below(top))


def _by_name(path: str) -> Iterator[Callable[[], object]]:
    raw = os.fsencode(path)
    yield lambda: os.stat(path)
    yield lambda: os.lstat(path)
    yield lambda: os.readlink(path)
    yield lambda: os.statvfs(path)
    yield lambda: os.listdir(path)
    yield lambda: os.listxattr(path)
    yield lambda: os.getxattr(path, "security.selinux")
    yield lambda: os.getxattr(path, "system.posix_acl_access")
    for mode in (os.F_OK, os.R_OK, os.W_OK, os.X_OK, os.R_OK | os.W_OK):
        yield partial(os.access, path, mode)
    for flags, mask in itertools.product(STATX_FLAGS, STATX_MASKS):
        yield partial(libc.statx, -100, raw, flags, mask, ctypes.create_string_buffer(512))
    for name in ODD_NAMES:
        yield partial(os.lstat, raw + b"/" + name)


def _by_descriptor(path: str) -> Iterator[Callable[[], object]]:
    for flags in (
        os.O_RDONLY, os.O_RDONLY | os.O_DIRECT, os.O_RDONLY | os.O_NONBLOCK, os.O_PATH,
        os.O_RDONLY | os.O_SYNC | os.O_NOATIME, os.O_RDONLY | os.O_DIRECTORY,
        os.O_RDONLY | os.O_NOFOLLOW, os.O_RDONLY | os.O_ASYNC, 0o37777777,
    ):  # fmt: skip
        yield partial(_use, path, flags)


def _use(path: str, flags: int) -> None:
    with closing(os.open(path, flags | os.O_CLOEXEC)) as descriptor:
        for call in _calls(descriptor):
            with suppress(OSError, ValueError, OverflowError):
                call()


def _calls(fd: int) -> Iterator[Callable[[], object]]:
    for size in ODD_SIZES:
        for offset in ODD_OFFSETS:
            yield partial(os.pread, fd, size, offset)
    for whence in range(6):
        for offset in (0, 1, -1, 1 << 40):
            yield partial(os.lseek, fd, offset, whence)
    for request in IOCTLS:
        yield partial(fcntl.ioctl, fd, request, bytes(64))
    for lock in (fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK):
        data = struct.pack("hhqqi", lock, 0, 0, 10, 0)
        yield partial(fcntl.fcntl, fd, fcntl.F_SETLK, data)
        yield partial(fcntl.fcntl, fd, fcntl.F_GETLK, data)
    yield lambda: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    yield lambda: fcntl.flock(fd, fcntl.LOCK_UN)
    yield lambda: os.fstat(fd)
    yield lambda: os.fsync(fd)
    yield lambda: os.fdatasync(fd)
    yield lambda: check(libc.syncfs(fd))
    yield lambda: os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED)
    yield lambda: check(libc.readahead(fd, ctypes.c_long(0), 4096))
    yield lambda: select.select([fd], [fd], [fd], 0)
    yield lambda: os.preadv(fd, [bytearray(3), bytearray(5)], 1)
    yield lambda: mmap.mmap(fd, 1, mmap.MAP_PRIVATE, mmap.PROT_READ).close()
    yield lambda: check(libc.fallocate(fd, 3, ctypes.c_long(0), ctypes.c_long(1)))
    yield lambda: os.fchdir(fd)
    yield lambda: [entry.name for entry in os.scandir(fd)]
    yield lambda: _small_listing(fd)


def _small_listing(fd: int) -> None:
    """getdents64(2) with buffers that hold one entry or none, and from places in between."""
    number = {"x86_64": 217, "aarch64": 61, "s390x": 220}[os.uname().machine]
    for size in (16, 24, 64, 300):
        os.lseek(fd, 0, os.SEEK_SET)
        buffer = ctypes.create_string_buffer(size)
        while libc.syscall(number, fd, buffer, size) > 0:
            continue
    for place in (1, 3, 1000, 1 << 40):
        os.lseek(fd, place, os.SEEK_SET)
        libc.syscall(number, fd, ctypes.create_string_buffer(300), 300)


def read_while_interrupted(path: str, times: int) -> None:
    """Reads that signals interrupt: the kernel sends INTERRUPT, or takes a request back."""
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0003)
    try:
        for _ in range(times):
            with suppress(OSError), closing(os.open(path, os.O_RDONLY)) as descriptor:
                os.read(descriptor, 1 << 16)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
