"""Gets a Debian kernel and its modules, apart from any root file system."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.machine.harness.apt import PrivateApt
from tests.machine.harness.cache import cached, key_of
from tests.machine.harness.errors import MachineError
from tests.machine.harness.image import make_ext4, run_tool
from tests.machine.harness.packages import ensure_host_packages

_METAPACKAGE = "linux-image-cloud-amd64"
# A kernel is one package, or a few: newer releases keep the modules in a package of their own.
_PART = re.compile(r"linux-(image|base|binary|modules)-.*amd64$")
_MODULES_IMAGE_MIB = 192


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel in the cache: `vmlinuz`, the tree `modules/` and the same as `modules.ext4`."""

    directory: Path

    @property
    def vmlinuz(self) -> Path:
        """The bootable kernel image."""
        return self.directory / "vmlinuz"

    @property
    def modules_image(self) -> Path:
        """An ext4 image with what belongs in /usr/lib/modules."""
        return self.directory / "modules.ext4"

    @property
    def modules_root(self) -> Path:
        """A directory that modprobe can take as `--dirname`."""
        return self.directory / "modules"

    @property
    def release(self) -> str:
        """What `uname -r` says in a machine with this kernel."""
        return next((self.modules_root / "lib/modules").iterdir()).name


def debian_kernel(suite: str) -> Kernel:
    """The newest cloud kernel of a Debian suite, downloaded and unpacked if need be."""
    key = key_of(f"kernel-{suite}", [suite, _METAPACKAGE, _MODULES_IMAGE_MIB, 2])
    return Kernel(cached(key, lambda directory: _build(suite, directory)))


def _build(suite: str, directory: Path) -> None:
    ensure_host_packages()
    work = directory / "work"
    work.mkdir()
    apt = PrivateApt(work / "apt", suite)
    apt.update()
    unpacked = work / "unpacked"
    for deb in apt.download(_kernel_packages(apt), work):
        run_tool(["dpkg-deb", "-x", str(deb), str(unpacked)])
    _collect(unpacked, directory)
    shutil.rmtree(work)


def _kernel_packages(apt: PrivateApt) -> list[str]:
    """The packages behind the metapackage, followed over their dependencies."""
    found: list[str] = []
    wanted = [_METAPACKAGE]
    while wanted:
        for name in apt.depends(wanted.pop()):
            if _PART.match(name) and name not in found:
                found.append(name)
                wanted.append(name)
    if not found:
        raise MachineError(f"suite {apt.suite} has no {_METAPACKAGE}")
    return found


def _collect(unpacked: Path, directory: Path) -> None:
    # Releases with a package for the modules keep the image beside them, and not in /boot.
    releases = {
        path.name.removeprefix("vmlinuz-"): path for path in unpacked.glob("boot/vmlinuz-*")
    }
    for path in unpacked.glob("usr/lib/modules/*/vmlinuz"):
        releases[path.parent.name] = path
    if len(releases) != 1:
        raise MachineError(f"expected one kernel image, found {sorted(releases)}")
    ((release, image),) = releases.items()
    shutil.move(image, directory / "vmlinuz")
    modules = directory / "modules" / "lib" / "modules"
    modules.mkdir(parents=True)
    for place in (unpacked / "usr/lib/modules" / release, unpacked / "lib/modules" / release):
        if place.is_dir():
            shutil.copytree(place, modules / release, symlinks=True, dirs_exist_ok=True)
    run_tool(["depmod", "--basedir", str(directory / "modules"), release])
    make_ext4(modules, directory / "modules.ext4", _MODULES_IMAGE_MIB)
