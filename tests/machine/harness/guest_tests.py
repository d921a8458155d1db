"""Runs the project's own tests inside a machine."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from tests.machine.harness.errors import CommandTimeoutError
from tests.machine.harness.machine import Completed, Machine, Process

PROJECT = "/opt/procscope"
SLOWNESS = 15
"""How many times slower than a usual machine an emulated one is, on a host that is busy."""
_REPOSITORY = Path(__file__).resolve().parents[3]


def copy_project(machine: Machine) -> None:
    """Copy the repository's src/, tests/ and bench/ to PROJECT in the machine."""
    for name in ("src", "tests", "bench"):
        machine.copy_in(_REPOSITORY / name, f"{PROJECT}/{name}")
    machine.copy_in(_REPOSITORY / "pyproject.toml", f"{PROJECT}/pyproject.toml")


def follow(process: Process, *, timeout_s: float, sink: TextIO | None = None) -> Completed:
    """Wait for a command and meanwhile write its output to `sink`, by default our own stdout.

    Raises CommandTimeoutError when it takes longer than `timeout_s`; it is killed then.
    """
    out = sink or sys.stdout
    shown = [0, 0]
    deadline = time.monotonic() + timeout_s
    while True:
        left_s = deadline - time.monotonic()
        ended = process.poll(min(1.0, max(left_s, 0))) is not None
        for index, text in enumerate((process.stdout, process.stderr)):
            out.write(text[shown[index] :])
            shown[index] = len(text)
        out.flush()
        if ended:
            return process.wait()
        if left_s <= 0:
            process.wait(0)
            raise CommandTimeoutError(f"{' '.join(process.args)}: more than {timeout_s:g} s")


def start_pytest(
    machine: Machine, args: Sequence[str], variables: Mapping[str, str] | None = None
) -> Process:
    """Start pytest in the machine on PROJECT, which `copy_project` must have put there.

    `variables` are added to its environment. Unlike the host's tests, these leave bytecode: every
    daemon and command that they start would compile the project anew.

    Every skip there is a failure: a level that is run inside a machine is meant to run. `follow`
    shows its output and waits for it; the result's status is pytest's own.
    """
    environment = {
        "PYTHONPATH": f"{PROJECT}/src:{PROJECT}",
        "PROCSCOPE_NO_SKIP": "1",
        "PROCSCOPE_TEST_SLOWNESS": str(SLOWNESS),
        **(variables or {}),
    }
    command = [
        *("python3", "-m", "pytest", "--import-mode=importlib", "--rootdir", PROJECT),
        *("-c", "/dev/null", "-p", "no:cacheprovider", "-W", "error", *args),
    ]
    return machine.spawn(command, cwd=PROJECT, env=environment)
