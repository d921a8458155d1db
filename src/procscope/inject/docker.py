"""The `-v` options that give a Docker or podman container its files."""

from __future__ import annotations

from collections.abc import Iterable

from procscope.errors import ProcscopeError
from procscope.tree.sources import Pinned

RUNC_ALLOWS: tuple[str, ...] = (
    "proc/cpuinfo",
    "proc/diskstats",
    "proc/meminfo",
    "proc/stat",
    "proc/swaps",
    "proc/uptime",
    "proc/loadavg",
    "proc/slabinfo",
)
"""What runc lets be mounted below /proc (`checkProcMount()` in libcontainer)."""
CPU_FOLDER = "sys/devices/system/cpu"
MOUNTABLE = (*RUNC_ALLOWS, CPU_FOLDER)
DEFAULT_FILES = tuple(name for name in MOUNTABLE if name != "proc/slabinfo")


def mountable(file: str) -> str | None:
    """The member of MOUNTABLE that `file` stands for, None if there is none.

    `meminfo` stands for `proc/meminfo`, and slashes around a name do not count.
    """
    name = file.strip("/")
    if name not in MOUNTABLE:
        name = f"proc/{name.removeprefix('proc/')}"
    return name if name in MOUNTABLE else None


def volume_options(
    mountpoint: str, files: Iterable[str] = DEFAULT_FILES, pinned: Pinned = Pinned.NONE
) -> tuple[str, ...]:
    """Return the words for `docker run`: `-v SOURCE:TARGET:ro` for each file.

    `pinned` says which of them are taken from the pinned tree.
    `meminfo` stands for `proc/meminfo`. Raises ProcscopeError for a file that is not served, or
    that runc would refuse to mount, and for a mountpoint that the option's grammar has no room for.
    """
    if ":" in mountpoint or any(character.isspace() for character in mountpoint):
        raise ProcscopeError(
            f"docker run -v cannot name the mountpoint {mountpoint!r}",
            hint="serve at one without spaces and colons",
        )
    names: dict[str, None] = {}
    for file in files:
        name = mountable(file)
        if name is None:
            raise ProcscopeError(
                f"a container cannot be given {file!r} when it is made",
                hint="choose from " + ", ".join(MOUNTABLE),
            )
        names[name] = None
    return tuple(
        word for name in names for word in ("-v", f"{mountpoint}/{pinned.source(name)}:/{name}:ro")
    )
