"""Runs on the machine beside the containers: load and disk writes that none of them may see.

Standard library only. The load costs no CPU time: it is processes in uninterruptible sleep, each a
parent that waits for its vfork(2) child.
"""

import ctypes
import os
import signal
import subprocess
import time

WAITING_PROCESSES = 8
CLONE_VFORK = 0x4000
STACK_BYTES = 1 << 16
WRITE = "dd if=/dev/zero of=/var/tmp/neighbour bs=1M count=8 oflag=direct conv=notrunc status=none"


def wait_for_child() -> None:
    """Clone a child that sleeps for ever in memory of its own, and wait until it is gone."""
    libc = ctypes.CDLL(None)
    stack = ctypes.create_string_buffer(STACK_BYTES)
    top = ctypes.c_void_p(ctypes.addressof(stack) + STACK_BYTES - 64)
    libc.clone(ctypes.cast(libc.pause, ctypes.c_void_p), top, CLONE_VFORK | signal.SIGCHLD, None)


def main() -> None:
    """Make the load, then write 8 MiB about every second."""
    for _ in range(WAITING_PROCESSES):
        if os.fork() == 0:
            wait_for_child()
            os._exit(0)
    while True:
        subprocess.run(WRITE, shell=True, check=True)
        time.sleep(1)


if __name__ == "__main__":
    main()
