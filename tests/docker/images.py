"""Root file systems for images, made from the programs of this machine. No registry is used."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Iterator

SEARCH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))

PROGRAMS = (
    *(
        "sh",
        "bash",
        "cat",
        "dd",
        "sleep",
        "head",
        "tail",
        "nproc",
        "getconf",
        "awk",
        "ls",
        "seq",
        "grep",
        "busybox",
    ),
    *("free", "top", "uptime", "vmstat", "mpstat", "iostat", "lscpu", "htop", "timeout"),
)
"""What people look at a machine with, and a shell to run it."""

FOLDERS = ("proc", "sys", "dev", "etc", "tmp", "run", "root", "var", "usr", "usr/bin", "usr/lib")
LINKS = {"bin": "usr/bin", "sbin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64"}
TERMINALS = ("d/dumb", "x/xterm")
"""`top -b` needs the first, htop the second."""
TERMINFO = ("/usr/share/terminfo", "/lib/terminfo", "/etc/terminfo")


def tools_root() -> bytes:
    """A tar archive with the tools and the libraries that they load."""
    programs = {name: _program(name) for name in PROGRAMS}
    libraries = {path for program in programs.values() for path in _libraries(program)}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        _add_folders(
            archive, (*FOLDERS, "usr/lib64", "usr/share/terminfo/d", "usr/share/terminfo/x")
        )
        for link, target in LINKS.items():
            _add_link(archive, link, target)
        for name, program in programs.items():
            archive.add(program, f"usr/bin/{name}")
        for library in sorted(libraries):
            archive.add(os.path.realpath(library), _merged(library))
        for terminal in TERMINALS:
            candidates = (f"{folder}/{terminal}" for folder in TERMINFO)
            described = next(path for path in candidates if os.path.exists(path))
            archive.add(os.path.realpath(described), f"usr/share/terminfo/{terminal}")
        _add_file(archive, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    return buffer.getvalue()


def static_root() -> bytes:
    """A tar archive with one static binary, and nothing else that runs."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        _add_folders(archive, ("proc", "sys", "dev", "etc"))
        archive.add(os.path.realpath(_program("busybox")), "busybox")
    return buffer.getvalue()


def _program(name: str) -> str:
    found = shutil.which(name, path=SEARCH)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed, and the image needs it")
    return os.path.realpath(found)


def _libraries(program: str) -> Iterator[str]:
    """The paths that ldd(1) names, the program's interpreter among them."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    for line in listed.stdout.splitlines():
        for word in line.split():
            if word.startswith("/"):
                yield word
                break


def _merged(path: str) -> str:
    """The same path on a system whose /lib and /lib64 are links into /usr."""
    relative = path.lstrip("/")
    return relative if relative.startswith("usr/") else f"usr/{relative}"


def _add_folders(archive: tarfile.TarFile, names: Iterable[str]) -> None:
    for name in names:
        folder = tarfile.TarInfo(name)
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
        archive.addfile(folder)


def _add_link(archive: tarfile.TarFile, name: str, target: str) -> None:
    link = tarfile.TarInfo(name)
    link.type, link.linkname = tarfile.SYMTYPE, target
    archive.addfile(link)


def _add_file(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    file = tarfile.TarInfo(name)
    file.size, file.mode = len(content), 0o644
    archive.addfile(file, io.BytesIO(content))
