"""The mount as a filesystem: whole contents however they are read, and nothing to be changed."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import mmap
import os
import resource
import shutil
import stat as modes
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procscope.linux.mountinfo import read_mountinfo
from tests.integration import agents
from tests.integration.agents import Agent, agent
from tests.integration.cgroups import Group, container
from tests.integration.daemons import daemon
from tests.integration.files import CPU_FOLDER, PROC_FILES, meminfo
from tests.integration.tasks import stopped
from tests.integration.waiting import eventually

MIB = 1 << 20
WHOLE = 1 << 20
READABLE = tuple(name for name in PROC_FILES if not name.startswith("pressure/"))
libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(scope="module")
def group() -> Iterator[Group]:
    with container(memory_bytes=100 * MIB) as one:
        yield one


@pytest.fixture(scope="module")
def inside(group: Group) -> Iterator[Agent]:
    with agent(group) as one:
        yield one


@pytest.fixture(params=["host", "container"])
def reader(request: pytest.FixtureRequest, host: Agent, inside: Agent) -> Agent:
    """A test is run for a reader on the host and for one in a container."""
    return host if request.param == "host" else inside


def walk(top: str) -> list[str]:
    """Every name below `top`, with its type and mode."""
    found = []
    for folder, folders, files in os.walk(top, onerror=_raise):
        for name in sorted([*folders, *files]):
            status = os.lstat(f"{folder}/{name}")
            found.append(f"{folder}/{name} {modes.filemode(status.st_mode)} {status.st_ino}")
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def test_every_file_is_there_with_its_mode(mount: Path, reader: Agent) -> None:
    listed = [line.removeprefix(f"{mount}/").split()[:2] for line in reader.call(walk, str(mount))]
    listing = {entry[0]: entry[1] for entry in listed}
    assert {path for path in listing if path.startswith("proc")} == {
        "proc",
        "proc/pressure",
        *(f"proc/{name}" for name in PROC_FILES),
    }
    assert all(
        mode == ("-r--------" if path == "proc/slabinfo" else "-r--r--r--")
        for path, mode in listing.items()
        if path.removeprefix("proc/") in PROC_FILES
    )
    above = ["proc", "proc/pressure", "sys", "sys/devices", "sys/devices/system"]
    assert {listing[path] for path in above} == {"dr-xr-xr-x"}
    assert listing["sys/devices/system/cpu"] == "drwxr-xr-x"
    assert listing["sys/devices/system/cpu/online"] == "-r--r--r--"


def test_what_is_mounted_may_hold_no_devices_programs_or_privileges(mount: Path) -> None:
    (found,) = [one for one in read_mountinfo("/proc") if one.mount_point == str(mount)]
    assert found.fstype == "fuse.procscope"
    line = next(
        line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(mount) in line
    )
    options = set(line.split()[5].split(","))
    assert {"nosuid", "nodev", "noexec"} <= options
    assert "allow_other" in line.split()[-1].split(",")


def test_other_users_may_read_all_but_slabinfo(mount: Path) -> None:
    """`allow_other` lets them in, and the modes are heeded."""
    script = f"head -c 9 '{mount}/proc/meminfo'; cat '{mount}/proc/slabinfo'"
    ended = subprocess.run(
        ["sh", "-c", script], user=65534, group=65534, capture_output=True, check=False, text=True
    )
    assert ended.stdout == "MemTotal:"
    assert "Permission denied" in ended.stderr


def read_by(path: str, size: int) -> tuple[bytes, bytes]:
    """The content in pieces of `size` bytes, and the content of the same open file at once."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        pieces = []
        while piece := os.read(descriptor, size):
            assert len(piece) <= size
            pieces.append(piece)
        # From offset 1: a second read of the start would make the content anew.
        return b"".join(pieces), pieces[0][:1] + os.pread(descriptor, WHOLE, 1)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("size", [1, 7, 1 << 10, 1 << 16])
def test_a_file_is_whole_whatever_sizes_it_is_read_in(
    mount: Path, reader: Agent, size: int
) -> None:
    for name in READABLE:
        if name == "diskstats":
            continue  # may be empty; see the tests of diskstats
        in_pieces, at_once = reader.call(read_by, str(mount / "proc" / name), size)
        assert in_pieces == at_once
        assert in_pieces.endswith(b"\n")


def test_dd_with_one_byte_blocks_gets_it_whole(mount: Path, inside: Agent, group: Group) -> None:
    path = mount / "proc/meminfo"
    script = f"echo 0 > {group.directory('memory')}/cgroup.procs; dd if={path} bs=1 status=none"
    text = subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, check=True, text=True)
    fields = [line.partition(":")[0] for line in text.stdout.splitlines()]
    assert fields == list(meminfo(mount, inside))


@pytest.fixture(scope="module")
def opened(mount: Path) -> Iterator[tuple[int, bytes]]:
    """An open `stat`, which moves all the time, and its content."""
    descriptor = os.open(mount / "proc/stat", os.O_RDONLY)
    yield descriptor, os.pread(descriptor, WHOLE, 0)
    os.close(descriptor)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_part_of_an_open_file_is_of_the_content_fixed_at_its_open(
    opened: tuple[int, bytes], data: st.DataObject
) -> None:
    descriptor, content = opened
    offset = data.draw(st.integers(1, len(content) + 100))
    size = data.draw(st.integers(0, len(content) + 100))
    assert os.pread(descriptor, size, offset) == content[offset : offset + size]


def uptime_moves() -> None:
    """Return when the host's uptime has gone on."""
    before = Path("/proc/uptime").read_text().split()[0]
    while float(Path("/proc/uptime").read_text().split()[0]) < float(before) + 0.03:
        os.sched_yield()


def test_reading_from_the_start_again_is_fresh_and_reading_on_is_not(
    mount: Path, reader: Agent
) -> None:
    descriptor = reader.call(os.open, str(mount / "proc/uptime"), os.O_RDONLY)
    first = reader.call(os.pread, descriptor, 4, 0)
    rest = reader.call(os.pread, descriptor, 100, 4)
    reader.call(uptime_moves)
    assert reader.call(os.pread, descriptor, 100, 4) == rest
    fresh = reader.call(os.pread, descriptor, 100, 0)
    assert float(fresh.split()[0]) > float((first + rest).split()[0])
    assert reader.call(os.pread, descriptor, 100, 4) == fresh[4:]
    reader.call(os.close, descriptor)


def hold_open(path: str, count: int) -> int:
    """Open a file often while all the others are open; return how many were not whole."""
    kept: list[tuple[int, bytes]] = []
    for _ in range(count):
        descriptor = os.open(path, os.O_RDONLY)
        kept.append((descriptor, os.pread(descriptor, 100, 0)))
    bad = 0
    for descriptor, head in kept:
        content = head + os.pread(descriptor, WHOLE, 100)
        bad += not (content.startswith(b"cpu  ") and content.endswith(b"\n"))
        bad += content != head[:1] + os.pread(descriptor, WHOLE, 1)
        os.close(descriptor)
    return bad


def test_hundreds_of_open_files_are_each_whole(mount: Path, inside: Agent, host: Agent) -> None:
    """Two workers answer two readers at once, each for what the other has opened too."""
    for one in (inside, host):
        one.send(hold_open, str(mount / "proc/stat"), 300)
    assert [one.receive() for one in (inside, host)] == [0, 0]


def test_any_worker_answers_for_a_file_that_another_has_opened(inside: Agent) -> None:
    """Each of two in turn is the only one that runs: whatever is answered, it has answered."""
    with daemon("--workers", "2", "--deadline", "60") as served:
        path = str(served.mountpoint / "proc/stat")
        # A worker takes its name after its start.
        eventually(lambda: len(served.workers()) == 2)
        workers = served.workers()
        for first, second in (workers, workers[::-1]):
            with stopped(second):
                descriptor = inside.call(os.open, path, os.O_RDONLY)
                head = inside.call(os.pread, descriptor, 100, 0)
            # What is made anew is another content then.
            inside.call(uptime_moves)
            with stopped(first):
                rest = inside.call(os.pread, descriptor, WHOLE, 100)
                assert inside.call(os.pread, descriptor, 99, 1) == head[1:]
                fresh = inside.call(os.pread, descriptor, WHOLE, 0)
            with stopped(second):
                assert inside.call(os.pread, descriptor, WHOLE, 1) == fresh[1:]
                inside.call(os.close, descriptor)
            for content in (head + rest, fresh):
                assert content.startswith(b"cpu  ")
                assert content.endswith(b"\n")


def hold_thousands(path: str, count: int) -> list[int]:
    """How many of so many open files have a first line, a last line, and an end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count + 100:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, max(hard, count + 100)))
    descriptors = [os.open(path, os.O_RDONLY) for _ in range(count)]
    begun = ended = whole = 0
    for descriptor in descriptors:
        content = os.pread(descriptor, WHOLE, 0)
        begun += content.startswith(b"MemTotal:         102400 kB\n")
        ended += content.endswith(b" kB\n")
        whole += os.pread(descriptor, WHOLE, len(content)) == b""
    for descriptor in descriptors:
        os.close(descriptor)
    return [begun, ended, whole]


def test_with_more_files_open_than_contents_are_kept_for_they_are_still_whole(
    mount: Path, inside: Agent
) -> None:
    path = str(mount / "proc/meminfo")
    assert inside.call(hold_thousands, path, 5000) == [5000] * 3
    assert inside.call(read_by, path, 64)[0].endswith(b"\n")


def test_odd_offsets_are_the_end_or_an_error(mount: Path, reader: Agent) -> None:
    descriptor = reader.call(os.open, str(mount / "proc/meminfo"), os.O_RDONLY)
    for offset in (1 << 20, 1 << 40, 1 << 62):
        assert reader.call(os.pread, descriptor, 4096, offset) == b""
    for offset in (-1, -(1 << 63)):
        assert reader.call(agents.errno_of, os.pread, descriptor, 10, offset) == errno.EINVAL
    assert reader.call(agents.errno_of, os.lseek, descriptor, -1, os.SEEK_SET) == errno.EINVAL
    assert reader.call(os.pread, descriptor, 9, 0) == b"MemTotal:"
    reader.call(os.close, descriptor)


def setxattr(path: str) -> None:
    os.setxattr(path, "user.test", b"1")


def open_with(flags: int) -> Callable[[str], None]:
    return lambda path: os.close(os.open(path, flags))


CHANGES: dict[str, tuple[Callable[[str], object], str]] = {
    "write": (open_with(os.O_WRONLY), "proc/meminfo"),
    "read and write": (open_with(os.O_RDWR), "proc/meminfo"),
    "open with O_TRUNC": (open_with(os.O_RDONLY | os.O_TRUNC), "proc/meminfo"),
    "append": (open_with(os.O_WRONLY | os.O_APPEND), "proc/meminfo"),
    "create": (open_with(os.O_WRONLY | os.O_CREAT), "proc/new"),
    "create at the top": (open_with(os.O_WRONLY | os.O_CREAT), "new"),
    "write online of a CPU": (open_with(os.O_WRONLY), "sys/devices/system/cpu/online"),
    "truncate": (lambda path: os.truncate(path, 0), "proc/meminfo"),
    "chmod": (lambda path: os.chmod(path, 0o777), "proc/meminfo"),
    "chown": (lambda path: os.chown(path, 1, 1), "proc/meminfo"),
    "utime": (os.utime, "proc/meminfo"),
    "mkdir": (os.mkdir, "proc/folder"),
    "mkdir in the CPU folder": (os.mkdir, "sys/devices/system/cpu/cpu99"),
    "rmdir": (os.rmdir, "proc/pressure"),
    "unlink": (os.unlink, "proc/meminfo"),
    "rename": (lambda path: os.rename(path, f"{path}2"), "proc/meminfo"),
    "link": (lambda path: os.link(path, f"{path}2"), "proc/meminfo"),
    "symlink": (lambda path: os.symlink("target", path), "proc/link"),
    "mknod": (lambda path: os.mknod(path, 0o600 | modes.S_IFCHR, os.makedev(1, 3)), "proc/null"),
    "mkfifo": (os.mkfifo, "proc/fifo"),
    "setxattr": (setxattr, "proc/meminfo"),
    "removexattr": (lambda path: os.removexattr(path, "user.test"), "proc/meminfo"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_nothing_can_be_changed_by_root_either(mount: Path, what: str) -> None:
    change, path = CHANGES[what]
    assert agents.errno_of(change, str(mount / path)) == errno.EROFS
    assert (mount / "proc/meminfo").read_text().startswith("MemTotal:")


def test_what_is_no_file_system_matter_is_refused(mount: Path) -> None:
    path = str(mount / "proc/meminfo")
    assert agents.errno_of(os.getxattr, path, "user.test") in (errno.EOPNOTSUPP, errno.ENODATA)
    assert agents.errno_of(os.listdir, path) == errno.ENOTDIR
    assert agents.errno_of(os.readlink, path) == errno.EINVAL
    long_name = f"{mount}/proc/{'x' * 2000}"
    assert agents.errno_of(os.stat, long_name) in (errno.ENOENT, errno.ENAMETOOLONG)
    assert agents.errno_of(os.stat, f"{mount}/proc/no-such") == errno.ENOENT
    assert agents.errno_of(os.stat, f"{path}/below") == errno.ENOTDIR
    assert os.access(path, os.R_OK)


def raw_mmap(path: str, flags: int) -> int:
    """mmap(2) of a page, past Python's own look at the size: its errno, 0 where it succeeds."""
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (
        *(ctypes.c_void_p, ctypes.c_size_t),
        *(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long),
    )
    descriptor = os.open(path, os.O_RDONLY)
    address = libc.mmap(None, 4096, mmap.PROT_READ, flags, descriptor, 0)
    os.close(descriptor)
    return ctypes.get_errno() if address == ctypes.c_void_p(-1).value else 0


def test_a_file_cannot_be_mapped_as_every_reader_has_another(mount: Path) -> None:
    path = mount / "proc/meminfo"
    with path.open("rb") as file, pytest.raises((ValueError, OSError)):
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    assert raw_mmap(str(path), mmap.MAP_SHARED) == errno.ENODEV
    assert path.read_text().startswith("MemTotal:")


def test_statfs_answers(mount: Path, reader: Agent) -> None:
    found = reader.call(os.statvfs, str(mount / "proc"))
    assert found.f_flag & os.ST_NOSUID
    assert found.f_bsize > 0
    assert found.f_namemax == 255


def list_in_small_buffers(path: str, size: int) -> list[str]:
    """Names by getdents64(2) with a buffer that holds few entries, or one."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    buffer = ctypes.create_string_buffer(size)
    names = []
    number = {"x86_64": 217, "aarch64": 61, "s390x": 220}[os.uname().machine]
    while length := libc.syscall(number, descriptor, buffer, size):
        if length < 0:
            raise OSError(ctypes.get_errno(), "getdents64")
        data = buffer.raw[:length]
        while data:
            record_length = int.from_bytes(data[16:18], "little")
            names.append(data[19:record_length].split(b"\0")[0].decode())
            data = data[record_length:]
    os.close(descriptor)
    return names


@pytest.mark.parametrize("folder", ["proc", "sys/devices/system/cpu", "proc/pressure"])
def test_a_folder_is_listed_whole_with_any_buffer(mount: Path, reader: Agent, folder: str) -> None:
    path = str(mount / folder)
    expected = sorted([".", "..", *reader.call(os.listdir, path)])
    for size in (64, 100, 1 << 16):
        assert sorted(reader.call(list_in_small_buffers, path, size)) == expected


def walks(top: str, times: int) -> list[str]:
    """A digest of everything below `top`, each time."""
    return [hashlib.sha256("\n".join(walk(top)).encode()).hexdigest() for _ in range(times)]


def test_walks_at_once_all_find_the_same(mount: Path, group: Group) -> None:
    with agent(group) as one, agent(group) as two, agent(group) as three, agent(group) as four:
        walkers = [one, two, three, four]
        for walker in walkers:
            walker.send(walks, str(mount), 3)
        digests = [digest for walker in walkers for digest in walker.receive()]  # type: ignore[attr-defined]
    assert len(digests) == 12
    assert len(set(digests)) == 1


def test_the_cpu_folder_is_the_hosts_for_a_reader_on_the_host(mount: Path, host: Agent) -> None:
    ours = host.call(walk, f"{mount}{CPU_FOLDER}")
    theirs = host.call(walk, str(CPU_FOLDER))
    assert [line.removeprefix(str(mount)).rpartition(" ")[0] for line in ours] == [
        line.rpartition(" ")[0] for line in theirs
    ]


def test_released_files_give_their_place_back(mount: Path, inside: Agent) -> None:
    """Ten times as many as fit at once, one after the other: each is kept as it was opened."""
    path = str(mount / "proc/uptime")
    descriptor = inside.call(os.open, path, os.O_RDONLY)
    content = inside.call(os.pread, descriptor, 100, 0)
    eventually(lambda: inside.call(agents.read_many, path, 6000))
    assert inside.call(os.pread, descriptor, 100, 1) == content[1:]
    inside.call(os.close, descriptor)


@pytest.mark.parametrize("name", ["proc/meminfo", "proc/stat", "sys/devices/system/cpu/online"])
def test_sendfile_is_no_empty_file(mount: Path, tmp_path: Path, name: str) -> None:
    """busybox copies with sendfile(2): it is whole, or refused so that the program reads on."""
    path = mount / name
    with path.open("rb") as source, (tmp_path / "copy").open("wb") as target:
        refused = agents.errno_of(os.sendfile, target.fileno(), source.fileno(), None, 1 << 20)
    # Before Linux 6.5 splice reads as read(2) does.
    assert refused == errno.EINVAL or (tmp_path / "copy").read_bytes()
    shutil.copyfile(path, tmp_path / "copied")
    assert (tmp_path / "copied").read_bytes()


def test_a_private_mapping_never_shows_what_others_read(mount: Path, tmp_path: Path) -> None:
    """The page cache is shared by all readers, so nothing is ever put into it."""
    script = (
        "import ctypes, mmap, os, sys\n"
        "fd = os.open(sys.argv[1], os.O_RDONLY)\n"
        "view = mmap.mmap(fd, 4096, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)\n"
        "print(view[:8])\n"
    )
    program = [sys.executable, "-c", script, str(mount / "proc/meminfo")]
    done = subprocess.run(program, capture_output=True, check=False)
    assert done.returncode != 0
    assert done.stdout == b""
