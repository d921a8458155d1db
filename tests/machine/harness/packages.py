"""The Debian packages that the harness needs: on the host, and in the machine's root."""

import os
import platform
import shutil
import subprocess

from tests.machine.harness.errors import MachineUnavailableError

# Command that must be there -> package that has it.
_HOST_BOOT_COMMANDS = {
    "setpriv": "util-linux",
}
_HOST_BUILD_COMMANDS = {
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "cpio": "cpio",
    "depmod": "kmod",
    "dpkg-deb": "dpkg",
}

ROOT_PACKAGES: tuple[str, ...] = (
    # The base of the machine.
    "systemd",
    "systemd-sysv",
    "dbus",
    "dbus-user-session",
    "libpam-systemd",
    "kmod",
    "iproute2",
    "busybox-static",
    # What runs the tests.
    "python3",
    "python3-pytest",
    "python3-pytest-timeout",
    "python3-hypothesis",
    "python3-psutil",
    # The tools whose output inside a container is compared with a machine's.
    "procps",
    "sysstat",
    "util-linux",
    "util-linux-extra",
    "htop",
    "nodejs",
    "strace",
    "numactl",
    # FUSE and user namespaces without root.
    "fuse3",
    "uidmap",
    # Container engines.
    "docker.io",
    "podman",
    "crun",
    "netavark",
    "iptables",
)

# Newer suites put the Docker client in a package of its own.
_ONLY_IN_NEWER_SUITES = {"docker-cli"}


def root_packages(suite: str) -> tuple[str, ...]:
    """The packages of a machine's root in this Debian suite."""
    if suite == "bookworm":
        return ROOT_PACKAGES
    return ROOT_PACKAGES + tuple(sorted(_ONLY_IN_NEWER_SUITES))


def _missing(commands: dict[str, str]) -> list[str]:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return [pkg for command, pkg in commands.items() if shutil.which(command, path=path) is None]


def why_cannot_install() -> str | None:
    """Why this process cannot install Debian packages, in one line, or None if it can."""
    if shutil.which("apt-get") is None:
        return "this host has no apt-get to install them with"
    if os.geteuid() != 0:
        return "only root can install them"
    return None


def why_unavailable(*, build: bool = True) -> str | None:
    """Why this host cannot build (or, with build=False, boot) machines; None if it can.

    What is missing but can be installed with apt-get by this process counts as there.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        return f"machines are x86-64 and this host is {platform.machine()}"
    commands = _HOST_BOOT_COMMANDS | (_HOST_BUILD_COMMANDS if build else {})
    missing = _missing(commands)
    reason = why_cannot_install()
    if missing and reason:
        return f"these packages are missing: {' '.join(missing)}, and {reason}"
    if build and reason:
        return f"a machine's root cannot be built here: {reason.replace('them', 'packages')}"
    return None


def ensure_host_packages(*, build: bool = True) -> None:
    """Install what is missing on the host.

    Raises MachineUnavailableError, with the reason in one line, when that is not possible.
    """
    reason = why_unavailable(build=build)
    if reason:
        raise MachineUnavailableError(reason)
    missing = _missing(_HOST_BOOT_COMMANDS | (_HOST_BUILD_COMMANDS if build else {}))
    if not missing:
        return
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    install = [*apt, "install", "-y", "--no-install-recommends", *missing]
    for command in ([*apt, "update"], install):
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise MachineUnavailableError(
                f"{' '.join(command)} failed: {done.stderr.strip()[-400:]}"
            )
