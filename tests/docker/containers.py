"""One container of the engine: commands in it, and its cgroups read without the product."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.docker.engine import CommandError, Engine
from tests.levels import CgroupMount, cgroup_mounts

NS_PER_USEC = 1000


class Container:
    """A container that runs, by its full id."""

    def __init__(self, engine: Engine, id_: str) -> None:
        self.engine = engine
        self.id = id_

    def run(self, *command: str, timeout_s: float = 60.0) -> str:
        """Run a command in it (`docker exec`); return what it prints."""
        return self.engine.docker("exec", self.id, *command, timeout_s=timeout_s)

    def shell(self, script: str, timeout_s: float = 60.0) -> str:
        """Run a script in it."""
        return self.run("sh", "-c", script, timeout_s=timeout_s)

    def start(self, *command: str) -> None:
        """Start a command in it that goes on by itself."""
        self.engine.docker("exec", "-d", self.id, *command)

    def read(self, path: str) -> str:
        """Return a file as the container has it."""
        return self.run("cat", path)

    def inspect(self, form: str) -> str:
        """Return what the engine knows of it."""
        return self.engine.docker("inspect", "-f", form, self.id).strip()

    @property
    def init_pid(self) -> int:
        """The host's pid of its first process."""
        return int(self.inspect("{{.State.Pid}}"))

    def cgroup(self, controller: str) -> Path:
        """Return its directory in the hierarchy that has the controller."""
        return hierarchy(controller).mountpoint / "docker" / self.id

    def enter(self, cgroups: Mapping[Path, Path], *command: str) -> str:
        """Run a command of the container in other cgroups than its own, by hierarchy."""
        script = 'pid=$1; shift; while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs"; shift; done; '
        script += 'shift; exec nsenter --target "$pid" --mount --pid -- "$@"'
        directories = [str(path) for path in cgroups.values()]
        arguments = [str(self.init_pid), *directories, "--", *command]
        done = subprocess.run(
            ["sh", "-c", script, "sh", *arguments],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        if done.returncode != 0:
            raise CommandError(f"{' '.join(command)} in {directories}: {done.stderr.strip()}")
        return done.stdout


def hierarchy(controller: str) -> CgroupMount:
    """Return the mount that has a controller: its own on v1, the unified one on v2."""
    return next(mount for mount in cgroup_mounts() if controller in mount.controllers)


def is_v1(controller: str) -> bool:
    """Whether the controller is on a v1 hierarchy."""
    return hierarchy(controller).version == 1


def flat(path: Path) -> dict[str, int]:
    """Return a file of `name number` lines."""
    return {
        name: int(number)
        for name, number in (line.split() for line in path.read_text().splitlines())
    }


def used_ns(container: Container) -> int:
    """Return the CPU time that the kernel has counted for the container."""
    if any("cpuacct" in mount.controllers for mount in cgroup_mounts() if mount.version == 1):
        return int((container.cgroup("cpuacct") / "cpuacct.usage").read_text())
    return flat(container.cgroup("cpu") / "cpu.stat")["usage_usec"] * NS_PER_USEC


def throttled_ns(container: Container) -> int:
    """Return the time for which the kernel has withheld the CPU, added up over CPUs."""
    stat = flat(container.cgroup("cpu") / "cpu.stat")
    if is_v1("cpu"):
        return stat["throttled_time"]
    return stat["throttled_usec"] * NS_PER_USEC


def make_below(container: Container, relative: str, memory_bytes: int) -> dict[Path, Path]:
    """Make cgroups below the container's in every hierarchy; return them by its mountpoint.

    On v2 the container's processes move out of its own cgroup first, as the kernel demands and
    as the entrypoint of Docker-in-Docker does.
    """
    made: dict[Path, Path] = {}
    for mount in cgroup_mounts():
        own = mount.mountpoint / "docker" / container.id
        if not own.is_dir():
            continue
        if mount.version == 2 and "memory" in mount.controllers:
            _delegate(own, relative)
        below = own / relative
        below.mkdir(parents=True)
        _give_cpus(own, below)
        for name in ("memory.limit_in_bytes", "memory.max"):
            if (below / name).exists():
                (below / name).write_text(str(memory_bytes))
        made[mount.mountpoint] = below
    return made


def _delegate(own: Path, relative: str) -> None:
    first = own / "init"
    first.mkdir(exist_ok=True)
    for pid in (own / "cgroup.procs").read_text().split():
        (first / "cgroup.procs").write_text(pid)
    for folder in (own, *_between(own, relative)):
        folder.mkdir(exist_ok=True)
        (folder / "cgroup.subtree_control").write_text("+memory")


def _between(own: Path, relative: str) -> Iterator[Path]:
    folder = own
    for name in relative.split("/")[:-1]:
        folder /= name
        yield folder


def _give_cpus(own: Path, below: Path) -> None:
    """A v1 cpuset is empty when it is made, and takes no task then."""
    folders = [below, *(path for path in below.parents if own in path.parents)]
    for folder in reversed(folders):
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (folder / name).exists():
                (folder / name).write_text((own / name).read_text())


def remove_below(cgroups: Mapping[Path, Path], container: Container) -> None:
    """Remove what `make_below` has made, up to the container's own cgroup."""
    for mountpoint, path in cgroups.items():
        own = mountpoint / "docker" / container.id
        folder = path
        while folder != own:
            folder.rmdir()
            folder = folder.parent
