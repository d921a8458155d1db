"""Builds the initramfs: busybox, the modules that reach the root, our init and the agent."""

import hashlib
import lzma
import shutil
import stat
import subprocess
from pathlib import Path

from tests.machine.harness.cache import cached, key_of
from tests.machine.harness.errors import MachineError
from tests.machine.harness.image import run_tool
from tests.machine.harness.kernel import Kernel

_GUEST = Path(__file__).parent / "guest"
_GUEST_FILES = ("init", "agent.py", "machine-agent.service")
_MODULES = (
    *(
        "virtio_pci",
        "virtio_blk",
        "virtio_console",
        "virtio_rng",
        "ext4",
        "fuse",
        "overlay",
        "loop",
    ),
)


def initramfs(kernel: Kernel, busybox: Path) -> Path:
    """The compressed cpio archive for this kernel; `busybox` is a static busybox to put in."""
    digests = [hashlib.sha256((_GUEST / name).read_bytes()).hexdigest() for name in _GUEST_FILES]
    recipe = [kernel.directory.name, list(_MODULES), digests, 1]
    key = key_of("initramfs", recipe)
    return cached(key, lambda directory: _build(kernel, busybox, directory)) / "initramfs.cpio"


def _build(kernel: Kernel, busybox: Path, directory: Path) -> None:
    tree = directory / "tree"
    for name in ("bin", "modules", "machine", "proc", "sys", "dev", "root"):
        (tree / name).mkdir(parents=True)
    shutil.copy(busybox, tree / "bin" / "busybox")
    _copy_modules(kernel, tree / "modules")
    for name in _GUEST_FILES:
        place = tree / "init" if name == "init" else tree / "machine" / name
        shutil.copy(_GUEST / name, place)
    for program in (tree / "init", tree / "bin" / "busybox"):
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    _pack(tree, directory / "initramfs.cpio")
    shutil.rmtree(tree)


def _copy_modules(kernel: Kernel, into: Path) -> None:
    """Copy the modules and what they depend on, uncompressed, and list them in load order."""
    order: list[str] = []
    for module in _MODULES:
        for path in _load_order(kernel, module):
            name = path.name.removesuffix(".xz")
            if name in order:
                continue
            content = path.read_bytes()
            (into / name).write_bytes(lzma.decompress(content) if path.suffix == ".xz" else content)
            order.append(name)
    (into / "order").write_text("".join(f"{name}\n" for name in order))


def _load_order(kernel: Kernel, module: str) -> list[Path]:
    """The files to insert for a module, dependencies first; none if it is built in."""
    options = ["--dirname", str(kernel.modules_root), "--set-version", kernel.release]
    text = run_tool(["modprobe", *options, "--show-depends", module])
    return [Path(line.split()[1]) for line in text.splitlines() if line.startswith("insmod ")]


def _pack(tree: Path, archive: Path) -> None:
    names = "\0".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    command = ["cpio", "--create", "--null", "--format=newc", "--owner=0:0", "--quiet"]
    with open(archive, "wb") as output:
        done = subprocess.run(
            command, cwd=tree, input=names.encode(), stdout=output, stderr=subprocess.PIPE,
            check=False,
        )  # fmt: skip
    if done.returncode != 0:
        raise MachineError(f"cpio failed: {done.stderr.decode(errors='replace')}")
