"""An interactive shell in a machine, over a virtio console."""

import os
import select
import shutil
import socket
import sys
import termios
import tty
from collections.abc import Callable

from tests.machine.harness.machine import Machine

_TERMINAL = "/dev/hvc0"


def interactive_shell(machine: Machine) -> None:
    """Connect this process's terminal with a root shell, until the shell ends.

    The machine must have been made with terminal=True.
    """
    size = shutil.get_terminal_size()
    start = f"stty rows {size.lines} cols {size.columns}; export TERM=linux; exec bash -l"
    redirect = f"<{_TERMINAL} >{_TERMINAL} 2>&1"
    process = machine.spawn(f"exec busybox setsid -c sh -c '{start}' {redirect}", cwd="/root")
    connection = machine.qemu.terminal
    if not sys.stdin.isatty():
        _pump(connection, process.poll)
        return
    saved = termios.tcgetattr(sys.stdin)
    tty.setraw(sys.stdin)
    try:
        _pump(connection, process.poll)
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, saved)


def _pump(connection: socket.socket, poll: Callable[[], int | None]) -> None:
    """Copy bytes both ways until the command has ended and said its last."""
    sources: list[int] = [connection.fileno(), sys.stdin.fileno()]
    while True:
        readable, _, _ = select.select(sources, [], [], 0.5)
        if connection.fileno() in readable:
            os.write(sys.stdout.fileno(), connection.recv(65536))
        if sys.stdin.fileno() in readable:
            typed = os.read(sys.stdin.fileno(), 4096)
            # The end of a piped input is the terminal's end-of-file key.
            connection.sendall(typed or b"\x04")
            if not typed:
                sources.remove(sys.stdin.fileno())
        if not readable and poll() is not None:
            return
