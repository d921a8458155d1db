"""`/proc/PID/mountinfo`, as `show_mountinfo()` in the kernel's `fs/proc_namespace.c` writes it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from procscope.values import frozen

_OCTAL_ESCAPE = re.compile(r"\\([0-7]{3})")
_MOUNT_ID = re.compile(r"[0-9]{1,10}")


@frozen
class Mount:
    """One line of mountinfo."""

    mount_id: int
    parent_id: int
    device: str
    """`major:minor` of the superblock."""
    root: str
    """The path inside the filesystem that is mounted here."""
    mount_point: str
    mount_options: tuple[str, ...]
    fstype: str
    source: str
    super_options: tuple[str, ...]
    optional: tuple[str, ...] = ()
    """How mounts propagate: `shared:N`, `master:N`, …"""


def unescape(text: str) -> str:
    r"""Return `text` with the kernel's `\040`-like escapes resolved."""
    return _OCTAL_ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def parse_mountinfo(text: str) -> Iterator[Mount]:
    """Yield the mounts of a mountinfo text in its order; lines that are none are skipped.

    A line ends at a line feed and nowhere else: a mount point may hold a carriage return, or what
    Unicode calls a line separator, and the kernel does not escape those.
    """
    for line in text.split("\n"):
        head, separator, tail = line.partition(" - ")
        fields, super_fields = head.split(" "), tail.split(" ")
        if not separator or len(fields) < 6 or len(super_fields) < 3:
            continue
        if not (_MOUNT_ID.fullmatch(fields[0]) and _MOUNT_ID.fullmatch(fields[1])):
            continue
        yield Mount(
            mount_id=int(fields[0]),
            parent_id=int(fields[1]),
            device=fields[2],
            root=unescape(fields[3]),
            mount_point=unescape(fields[4]),
            mount_options=tuple(fields[5].split(",")),
            fstype=unescape(super_fields[0]),
            source=unescape(super_fields[1]),
            super_options=tuple(unescape(option) for option in super_fields[2].split(",")),
            optional=tuple(fields[6:]),
        )


def read_mountinfo(proc: str = "/proc", pid: str = "self") -> tuple[Mount, ...]:
    """Return the mounts that process `pid` sees. Raises OSError."""
    path = f"{proc}/{pid}/mountinfo"
    with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        return tuple(parse_mountinfo(file.read()))
