"""Starts qemu for a machine. Nothing it needs has a name on the host, so nothing is left behind."""

import os
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.machine.harness.emulator import Emulator
from tests.machine.harness.spec import MachineSpec

_MIB = 1 << 20
# Of an emulator on a busy host: no watchdogs, no checks of timers against each other, and none of
# the mitigations for processor bugs that an emulated processor does not have.
_KERNEL_ARGS = (
    *("console=ttyS0", "loglevel=5", "panic=-1", "psi=1", "nowatchdog", "no_timer_check"),
    *("mitigations=off", "nokaslr", "tsc=reliable", "cgroup_no_v1=all"),
    *("systemd.unified_cgroup_hierarchy=1", "systemd.show_status=false"),
)


@dataclass(frozen=True, slots=True)
class BootFiles:
    """The emulator and the files that a machine boots from; none is written to."""

    emulator: Emulator
    vmlinuz: Path
    initramfs: Path
    root_image: Path
    modules_image: Path


class Qemu:
    """A running qemu, its console's text, and the host's ends of its ports."""

    def __init__(self, spec: MachineSpec, files: BootFiles, *, terminal: bool = False) -> None:
        self.console: IO[bytes] = tempfile.TemporaryFile()
        sizes = {"scratch": spec.scratch_mib, "swap": spec.swap_mib}
        self._disks = {name: _blank_disk(size) for name, size in sizes.items() if size > 0}
        self.agent, agent_end = socket.socketpair()
        self.terminal, terminal_end = socket.socketpair()
        inherited = [agent_end.fileno(), terminal_end.fileno()]
        inherited += [file.fileno() for file in self._disks.values()]
        command = [
            # The kernel kills qemu when this process ends, in whatever way.
            *("setpriv", "--pdeathsig", "KILL", "--"),
            *_command(spec, files),
            *_agent_port(agent_end),
            *(_terminal_port(terminal_end) if terminal else ()),
            *(w for name, file in self._disks.items() for w in _blank_disk_args(name, file)),
        ]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self.console,
            stderr=self.console,
            pass_fds=inherited,
            env=files.emulator.environment,
            start_new_session=True,
        )
        agent_end.close()
        terminal_end.close()

    def console_text(self) -> str:
        """What the kernel, the init and qemu itself have printed so far."""
        size = os.fstat(self.console.fileno()).st_size
        return os.pread(self.console.fileno(), size, 0).decode(errors="replace")

    def stop(self) -> None:
        """End the machine at once, as a power cut does, and close everything."""
        self.process.kill()
        self.process.wait()
        self.agent.close()
        self.terminal.close()
        self.console.close()
        for file in self._disks.values():
            file.close()


def _blank_disk(size_mib: int) -> IO[bytes]:
    file = tempfile.TemporaryFile(dir="/var/tmp")
    file.truncate(size_mib * _MIB)
    return file


def _command(spec: MachineSpec, files: BootFiles) -> list[str]:
    boot = "systemd" if spec.systemd else "fast"
    kernel_args = (*_KERNEL_ARGS, f"machine.boot={boot}", *spec.kernel_args)
    return [
        *files.emulator.command,
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", "q35,usb=off,vmport=off,smbus=off"),
        # One thread for all CPUs: with one for each, a CPU may go on executing an instruction
        # that another has replaced, and kernels that patch themselves panic now and then.
        *("-accel", "tcg,thread=single", "-cpu", "max,la57=off"),
        *("-smp", f"{spec.cpus},sockets=1,cores={spec.cpus},threads=1"),
        *("-m", f"{spec.memory_mib}M", *_numa(spec)),
        *("-kernel", str(files.vmlinuz), "-initrd", str(files.initramfs)),
        *("-append", " ".join(kernel_args)),
        *("-serial", "stdio", "-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
        *_drive("root", f"file={files.root_image},snapshot=on,cache=unsafe"),
        *_drive("modules", f"file={files.modules_image},snapshot=on,cache=unsafe"),
    ]


def _drive(serial: str, options: str) -> list[str]:
    drive = f"if=none,id={serial},format=raw,discard=unmap,{options}"
    return ["-drive", drive, "-device", f"virtio-blk-pci,drive={serial},serial={serial}"]


def _blank_disk_args(serial: str, file: IO[bytes]) -> list[str]:
    return _drive(serial, f"file=/proc/self/fd/{file.fileno()},cache=unsafe,file.locking=off")


def _agent_port(end: socket.socket) -> list[str]:
    return [
        *("-chardev", f"socket,id=agent,fd={end.fileno()}"),
        *("-device", "virtserialport,chardev=agent,name=machine.agent"),
    ]


def _terminal_port(end: socket.socket) -> list[str]:
    return [
        *("-chardev", f"socket,id=terminal,fd={end.fileno()}"),
        *("-device", "virtconsole,chardev=terminal"),
    ]


def _numa(spec: MachineSpec) -> list[str]:
    if spec.numa_nodes == 1:
        return []
    words: list[str] = []
    cpus = spec.cpus // spec.numa_nodes
    for node in range(spec.numa_nodes):
        size = f"{spec.memory_mib // spec.numa_nodes}M"
        words += ["-object", f"memory-backend-ram,id=mem{node},size={size}"]
        first = node * cpus
        words += ["-numa", f"node,nodeid={node},cpus={first}-{first + cpus - 1},memdev=mem{node}"]
    return words
