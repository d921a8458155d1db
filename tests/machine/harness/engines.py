"""Container engines inside a machine: Docker, and podman with crun.

Neither has a network: no bridge and no iptables rules, which the cloud kernel would load many
modules for. Images are made on the spot, from the machine's static busybox or its own folders.

Docker needs `--bridge=none --iptables=false --ip6tables=false`; overlay2 works on the machine's
ext4 root as it is. podman needs `--network=none` and, without systemd, `--cgroup-manager=cgroupfs`.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.machine.harness.errors import MachineError
from tests.machine.harness.machine import Machine

IMAGE = "busybox:machine"
_IMAGE_TAR = "/var/tmp/busybox-image.tar"
_HOST_IMAGE = "host:machine"
_HOST_IMAGE_TAR = "/var/tmp/host-image.tar"
# Options of `docker run` without which an image of `host_image` has no program.
HOST_FOLDERS = "-v /usr:/usr:ro -v /opt:/opt:ro"
_DOCKERD_CGROUP = "/sys/fs/cgroup/dockerd"
_START_TIMEOUT_S = 120.0
# Options that podman needs before its subcommand in a machine with the fast init.
PODMAN = ("podman", "--cgroup-manager=cgroupfs", "--events-backend=file", "--runtime=crun")

_MAKE_IMAGE = f"""
set -eu
root=$(mktemp -d)
mkdir -p $root/bin $root/etc $root/proc $root/sys $root/dev $root/tmp
cp /usr/bin/busybox $root/bin/busybox
for applet in $(busybox --list); do
    [ -e $root/bin/$applet ] || ln -s busybox $root/bin/$applet
done
echo root:x:0:0:root:/:/bin/sh > $root/etc/passwd
tar -C $root -cf {_IMAGE_TAR} .
rm -rf $root
"""

_MAKE_HOST_IMAGE = f"""
set -eu
root=$(mktemp -d)
mkdir -p $root/usr $root/opt $root/proc $root/sys $root/dev $root/root $root/run
mkdir -p -m 1777 $root/tmp $root/var/tmp
for link in /bin /lib /lib64 /sbin; do cp -P $link $root/; done
cp -a /etc $root/
tar -C $root -cf {_HOST_IMAGE_TAR} .
rm -rf $root
"""


def make_busybox_image(machine: Machine) -> str:
    """Make a tar file of a root with busybox in the machine, and return its path there."""
    machine.run(_MAKE_IMAGE)
    return _IMAGE_TAR


def host_image(machine: Machine, engine: tuple[str, ...]) -> str:
    """Import an image that has the machine's own tools, and return its name.

    It has the machine's /etc, and empty folders where HOST_FOLDERS are mounted: copying all of
    /usr would take minutes in an emulated machine.
    """
    machine.run(_MAKE_HOST_IMAGE)
    machine.run([*engine, "import", _HOST_IMAGE_TAR, _HOST_IMAGE], timeout_s=120)
    return _HOST_IMAGE


@contextmanager
def docker(machine: Machine, *options: str) -> Iterator[None]:
    """Run dockerd with its own containerd, and IMAGE imported, until the end of the block.

    Raises MachineError with dockerd's own words if it does not start.
    """
    command = [
        *("dockerd", "--bridge=none", "--iptables=false", "--ip6tables=false"),
        *("--storage-driver=overlay2", *options),
    ]
    # In a cgroup of its own: dockerd looks for memory.swap.max in the cgroup that it is in, and
    # without it, as in the root cgroup, takes no limits of swap.
    join = f"mkdir -p {_DOCKERD_CGROUP} && echo 0 > {_DOCKERD_CGROUP}/cgroup.procs"
    daemon = machine.spawn(f"{join} && exec {' '.join(command)}")
    try:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while machine.run(["docker", "version"], check=False).status != 0:
            if daemon.poll() is not None or time.monotonic() > deadline:
                daemon.kill(signal.SIGKILL)
                raise MachineError(f"dockerd did not start:\n{daemon.wait().stderr[-4000:]}")
        machine.run(["docker", "import", make_busybox_image(machine), IMAGE])
        yield
    finally:
        if daemon.poll() is None:
            daemon.kill(signal.SIGTERM, group=False)
            daemon.wait(60)
        machine.run(["rmdir", _DOCKERD_CGROUP], check=False)


@contextmanager
def podman(machine: Machine) -> Iterator[tuple[str, ...]]:
    """Import IMAGE into podman; gives the first words of a podman command line."""
    words = ("podman", "--runtime=crun") if machine.spec.systemd else PODMAN
    machine.run([*words, "import", make_busybox_image(machine), IMAGE], timeout_s=120)
    try:
        yield words
    finally:
        machine.run([*words, "rm", "--all", "--force", "--time=0"], timeout_s=120)
