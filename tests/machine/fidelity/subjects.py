"""The subjects of the truth test: a small machine, and containers of its size on a large one."""

import json
import shlex
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from tests.machine.harness import engines
from tests.machine.harness.guest_tests import PROJECT, copy_project
from tests.machine.harness.machine import Machine
from tests.machine.harness.spec import MachineSpec

Record = dict[str, Any]
"""What collect.py printed in a subject."""

# With what the kernel keeps for itself, 1082 MiB of RAM are 1 GiB of MemTotal.
SMALL = MachineSpec(cpus=2, memory_mib=1082, swap_mib=256, scratch_mib=0)
LARGE = MachineSpec(cpus=8, memory_mib=3072, swap_mib=1024, scratch_mib=0)
MACHINE = "machine"
CONTAINERS = ("procscope run", "docker", "podman")
COLLECT = f"python3 {PROJECT}/tests/machine/fidelity/collect.py"
PROCSCOPE = f"env PYTHONPATH={PROJECT}/src python3 -m procscope"
MOUNTPOINT = "/var/lib/procscope"
# From Linux 6.7 freed memory may stay in the lists of each CPU, up to an eighth of all memory, and
# counts as used there: what a process frees or takes is then not what `free` tells.
_SMALL_FREE_LISTS = "echo 4000 > /proc/sys/vm/percpu_pagelist_high_fraction"
_COLLECT_TIMEOUT_S = 300.0


def measure(parts: Collection[str] = (), limits: str = "") -> dict[str, Record]:
    """Boot both machines, one after the other, and return the record of every subject.

    `parts` are those that collect.py is to collect, none for all; where `rest` is not among them,
    `limits` are the options that make a container as large as the small machine.
    """
    words = " ".join(parts)
    with Machine(SMALL) as machine:
        copy_project(machine)
        machine.run(_SMALL_FREE_LISTS)
        records = {MACHINE: _collect(machine, f"{COLLECT} machine {words}")}
    with Machine(LARGE) as machine:
        copy_project(machine)
        with serving(machine), _neighbour(machine):
            limits = limits or limits_of(records[MACHINE])
            records |= _of_containers(machine, limits, f"{COLLECT} container {words}")
    return records


def _of_containers(machine: Machine, limits: str, command: str) -> dict[str, Record]:
    records = {"procscope run": _collect(machine, f"{PROCSCOPE} run {limits} -- {command}")}
    views = machine.run(f"{PROCSCOPE} docker-args").stdout.strip()
    with engines.docker(machine):
        image = engines.host_image(machine, ("docker",))
        run = f"docker run --rm {views} {limits} {engines.HOST_FOLDERS} {image}"
        records["docker"] = _collect(machine, f"{run} {command}")
    with engines.podman(machine) as podman:
        image = engines.host_image(machine, podman)
        run = f"{shlex.join(podman)} run --rm --network=none {views} {limits}"
        run += f" {engines.HOST_FOLDERS} {image}"
        records["podman"] = _collect(machine, f"{run} {command}")
    return records


def limits_of(machine: Record) -> str:
    """The options that make a container as large as a machine: Docker's and `procscope run`'s."""
    lines = machine["rest"]["/proc/meminfo"]["text"].splitlines()
    sizes = {name: int(rest.split()[0]) for name, rest in (line.split(":") for line in lines)}
    memory_kb, swap_kb = sizes["MemTotal"], sizes["SwapTotal"]
    return f"--cpus 2 --memory {memory_kb}k --memory-swap {memory_kb + swap_kb}k"


def kernel_of(records: dict[str, Record]) -> str:
    """The release of the machines' kernel, as a tool has told it."""
    return str(records[MACHINE]["rest"]["iostat -c"]["text"].split()[1])


def _collect(machine: Machine, command: str) -> Record:
    done = machine.run(command, timeout_s=_COLLECT_TIMEOUT_S)
    record: Record = json.loads(done.stdout)
    return record


@contextmanager
def _neighbour(machine: Machine) -> Iterator[None]:
    """Somebody else who makes load and writes to the disk: no container may see that."""
    process = machine.spawn(["python3", f"{PROJECT}/tests/machine/fidelity/neighbour.py"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def serving(machine: Machine, options: str = "", mountpoint: str = MOUNTPOINT) -> Iterator[None]:
    """Run `procscope serve` in a machine until the end of the block."""
    daemon = machine.spawn(f"exec {PROCSCOPE} serve --no-keeper {options} {mountpoint}")
    try:
        while machine.run(["test", "-e", f"{mountpoint}/proc/meminfo"], check=False).status:
            if daemon.poll(0.1) is not None:
                raise AssertionError(f"procscope serve has ended: {daemon.wait().stderr}")
        yield
    finally:
        daemon.kill(group=False)
        ended = daemon.wait(30)
    if ended.status != 0:
        raise AssertionError(f"procscope serve ended with {ended.status}: {ended.stderr}")
