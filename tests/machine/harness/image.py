"""Builds a machine's root file system: a Debian root in a read-only ext4 image."""

import os
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.machine.harness.apt import ANY_AGE, source_line
from tests.machine.harness.cache import cached, key_of
from tests.machine.harness.errors import MachineError
from tests.machine.harness.packages import ensure_host_packages, root_packages

# Room for what tests write. The image is sparse: it costs nothing on the host.
_IMAGE_MIB = 6144
_DOC_DIRS = ("doc", "man", "locale", "info", "lintian")

# Run in the new root. Services that a test wants are started by that test: a machine that
# starts container engines by itself would take long to boot and not be idle.
_CUSTOMIZE = """
set -eu
echo machine > /etc/hostname
printf '127.0.0.1 localhost machine\\n::1 localhost\\n' > /etc/hosts
: > /etc/fstab
systemctl mask --quiet apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
  e2scrub_all.timer fstrim.timer sysstat-collect.timer sysstat-summary.timer \
  sysstat-rotate.timer sysstat.service e2scrub_reap.service systemd-pstore.service \
  getty@tty1.service serial-getty@ttyS0.service
for unit in docker.service docker.socket containerd.service podman.service podman.socket \
  podman-auto-update.service podman-auto-update.timer podman-restart.service \
  podman-clean-transient.service; do
  systemctl disable --quiet "$unit" || true
done
useradd --create-home --shell /bin/bash tester
mkdir -p /var/lib/systemd/linger && touch /var/lib/systemd/linger/tester
rm -rf /var/log/* /var/cache/* /usr/share/bash-completion
"""


@dataclass(frozen=True, slots=True)
class RootRecipe:
    """Everything that a root image depends on, except the mirror's state at build time."""

    suite: str
    packages: tuple[str, ...]
    customize: str = _CUSTOMIZE
    image_mib: int = _IMAGE_MIB


def root_image(suite: str, more_packages: tuple[str, ...] = ()) -> Path:
    """The path of the ext4 image with the Debian root of this suite, built if need be."""
    recipe = RootRecipe(suite, root_packages(suite) + tuple(sorted(more_packages)))
    key = key_of(f"root-{suite}", asdict(recipe))
    return cached(key, lambda directory: _build(recipe, directory)) / "root.ext4"


def _build(recipe: RootRecipe, directory: Path) -> None:
    ensure_host_packages()
    root = directory / "root"
    try:
        _debian_root(recipe, root)
        shutil.copy(root / "usr/bin/busybox", directory / "busybox")
        make_ext4(root, directory / "root.ext4", recipe.image_mib)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _debian_root(recipe: RootRecipe, root: Path) -> None:
    script = root.parent / "customize.sh"
    script.write_text(recipe.customize)
    command = [
        *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--format=directory"),
        "--architectures=amd64",
        '--aptopt=APT::Install-Recommends "false"',
        f'--aptopt={ANY_AGE[0]} "{ANY_AGE[1]}"',
        *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _DOC_DIRS),
        f"--include={','.join(recipe.packages)}",
        f"--customize-hook=copy-in {script} /",
        f'--customize-hook=chroot "$1" sh /{script.name}',
        f'--customize-hook=rm "$1"/{script.name}',
        recipe.suite,
        str(root),
        source_line(recipe.suite),
    ]
    run_tool(command)
    script.unlink()


def make_ext4(source: Path, image: Path, size_mib: int) -> None:
    """Make a sparse ext4 image of `size_mib` with the content of the directory `source`.

    No journal: a machine's disk is thrown away with it. overlay2 needs only d_type, which ext4
    always has.
    """
    command = [
        *("mke2fs", "-q", "-t", "ext4", "-d", str(source), "-m", "0"),
        *("-O", "^has_journal", "-E", "lazy_itable_init=0,root_owner=0:0"),
        *(str(image), f"{size_mib}M"),
    ]
    run_tool(command)


def run_tool(command: list[str], cwd: Path | None = None) -> str:
    """Run a build tool and return its output; raises MachineError with all of it if it fails."""
    env = os.environ | {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin", "LC_ALL": "C"}
    done = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode != 0:
        raise MachineError(
            f"{command[0]} failed with status {done.returncode}:\n{done.stdout}{done.stderr}"
        )
    return done.stdout
