"""Boots real Debian machines under qemu in seconds and runs commands inside them.

A machine is made of three cached pieces: a root file system (`image`), a kernel with its
modules (`kernel`), and a small initramfs (`initramfs`). `qemu` starts it, `guest/agent.py` runs
inside it, `channel` talks to the agent, and `machine.Machine` is what a test uses.
"""

from tests.machine.harness.errors import (
    CommandFailedError,
    CommandTimeoutError,
    MachineError,
    MachineUnavailableError,
)
from tests.machine.harness.machine import Completed, Machine, Process
from tests.machine.harness.spec import MachineSpec

__all__ = [
    "CommandFailedError",
    "CommandTimeoutError",
    "Completed",
    "Machine",
    "MachineError",
    "MachineSpec",
    "MachineUnavailableError",
    "Process",
]
