"""The description of a machine, as the caller of the harness writes it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """What to boot.

    suite: the Debian suite of the root file system.
    kernel_suite: the suite that the kernel is taken from; None is `suite`. A backports suite or
        `sid` boots a newer kernel under the same root.
    memory_mib: the machine's RAM. The kernel keeps some for itself, as on real hardware.
    swap_mib: size of a swap disk that is active when the machine is up; 0 is no swap.
    scratch_mib: size of a blank disk for I/O tests, /dev/disk/by-id/virtio-scratch; 0 is none.
    systemd: boot systemd, with logind and user sessions, instead of the fast init.
    numa_nodes: over how many NUMA nodes the CPUs and the memory are spread evenly.
    kernel_args: more words for the kernel command line.
    packages: more Debian packages in the root file system; each choice is an image of its own.
    """

    suite: str = "trixie"
    kernel_suite: str | None = None
    cpus: int = 4
    memory_mib: int = 1024
    swap_mib: int = 0
    scratch_mib: int = 512
    systemd: bool = False
    numa_nodes: int = 1
    kernel_args: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.cpus < 1 or self.memory_mib < 128:
            raise ValueError("a machine needs at least 1 CPU and 128 MiB of memory")
        if self.cpus % self.numa_nodes or self.memory_mib % self.numa_nodes:
            raise ValueError("numa_nodes must divide both cpus and memory_mib")
