"""Gets a qemu that is known to run these machines, apart from what the host has installed.

qemu 7.2, the one of Debian 12, loses processor flags now and then when it emulates an SMP machine
(the guest's kernel panics in one boot of three), so the host's own qemu is not used.
The packages of a newer Debian are unpacked into the cache, and its own dynamic loader starts it.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from tests.machine.harness.apt import source_line
from tests.machine.harness.cache import cached, key_of
from tests.machine.harness.image import run_tool
from tests.machine.harness.packages import ensure_host_packages

_SUITE = "trixie"
_PACKAGE = "qemu-system-x86"
_LIBRARIES = "usr/lib/x86_64-linux-gnu"


@dataclass(frozen=True, slots=True)
class Emulator:
    """A qemu-system-x86_64 below a directory that holds all that it needs."""

    directory: Path

    @property
    def command(self) -> list[str]:
        """The command line's first words; options of qemu follow them."""
        libraries = self.directory / _LIBRARIES
        return [
            str(self.directory / "usr/lib64/ld-linux-x86-64.so.2"),
            *("--library-path", str(libraries)),
            str(self.directory / "usr/bin/qemu-system-x86_64"),
            *("-L", str(self.directory / "usr/share/qemu")),
            *("-L", str(self.directory / "usr/share/seabios")),
        ]

    @property
    def environment(self) -> dict[str, str]:
        """The environment for the command: where qemu's loadable modules are."""
        modules = self.directory / _LIBRARIES / "qemu"
        return {**os.environ, "QEMU_MODULE_DIR": str(modules)}


def emulator() -> Emulator:
    """The emulator in the cache, unpacked if need be."""
    key = key_of("emulator", [_SUITE, _PACKAGE, 1])
    return Emulator(cached(key, _build) / "root")


def _build(directory: Path) -> None:
    ensure_host_packages()
    command = [
        *("mmdebstrap", "--quiet", "--mode=root", "--variant=extract", "--format=directory"),
        "--architectures=amd64",
        '--aptopt=APT::Install-Recommends "false"',
        f"--include={_PACKAGE}",
        _SUITE,
        str(directory / "root"),
        source_line(_SUITE),
    ]
    run_tool(command)
