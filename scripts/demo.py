"""The demonstration: what tools tell on the host, and in a container of 256 MiB and 1 CPU.

Starts a daemon, runs a process that uses memory and CPU in a sandbox, shows both machines' answers
line under line, and cleans up. Where that is not possible here, shows what `procscope show`
computes for the demonstration's own cgroup, and says why.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROCSCOPE = str(Path(__file__).resolve().parent.parent / ".venv" / "bin" / "procscope")
MOUNTPOINT = "/var/lib/procscope"
START_PATIENCE_S = 20
RUN_PATIENCE_S = 120
WIDTH = 12

WORK = """
import time
memory = bytearray(100 << 20)
while True:
    pass
"""


@dataclass(frozen=True)
class Question:
    """A command whose answers are compared, and which lines of them are shown."""

    shown: str
    command: str


QUESTIONS = (
    Question("free -m", "free -m | cut -c1-47"),
    Question("nproc --all", "nproc --all"),
    Question("uptime", "uptime"),
    Question("top", "top -b -d 2 -n 2 -w 80 | awk '/^top -/ {n++} n == 2 && NF' | head -n 5"),
)
SEPARATOR = "-- next --"
SCRIPT = f"\necho '{SEPARATOR}'\n".join(question.command for question in QUESTIONS)


def main() -> int:
    """Show the demonstration."""
    refusal = demonstrate()
    if refusal is None:
        return 0
    print(f"Not shown in a container of its own: {refusal}")
    print("Computed by `procscope show` for the cgroup that this demonstration is in:\n")
    show_own_cgroup()
    return 0


def demonstrate() -> str | None:
    """Show host and container; return why not where that cannot be."""
    if os.geteuid() != 0:
        return "limits and mounts for other processes need root"
    try:
        with daemon():
            host = answers(["sh", "-c", SCRIPT])
            sandbox = [PROCSCOPE, "run", "--memory", "256m", "--cpus", "1", "--"]
            busy = f"{sys.executable} -c '{WORK}' & sleep 1\n{SCRIPT}\n"
            container = answers([*sandbox, "sh", "-c", busy])
    except RuntimeError as error:
        return str(error)
    print("The container has 256 MiB and 1 CPU; in it one process uses 100 MiB and all its CPU.\n")
    for question, ours, theirs in zip(QUESTIONS, host, container, strict=True):
        compare(question, ours, theirs)
    print("The daemon is stopped, and nothing is left behind.")
    print("Try it yourself:  sudo .venv/bin/procscope run --memory 256m --cpus 1 -- bash")
    return None


@contextmanager
def daemon() -> Iterator[None]:
    """Have a daemon serve for as long as the context lasts, a running one if there is one."""
    if os.path.isdir(f"{MOUNTPOINT}/proc"):
        print(f"A daemon already serves {MOUNTPOINT}.")
        yield
        return
    with tempfile.TemporaryFile("w+") as log:
        print(f"Starting:  procscope serve {MOUNTPOINT}")
        process = subprocess.Popen([PROCSCOPE, "serve", MOUNTPOINT], stderr=log)
        try:
            wait_until_it_serves(process)
            yield
        except TimeoutError:
            log.seek(0)
            lines = log.read().splitlines() or ["the daemon did not start"]
            raise RuntimeError(lines[-1].removeprefix("procscope: ")) from None
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


def wait_until_it_serves(process: subprocess.Popen[bytes]) -> None:
    """Return when the views can be read; raise TimeoutError where that does not come."""
    deadline_s = time.monotonic() + START_PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline_s:
        if os.path.isdir(f"{MOUNTPOINT}/proc"):
            return
        time.sleep(0.05)
    raise TimeoutError


def answers(command: list[str]) -> list[list[str]]:
    """Return the lines that each question's command printed; raise RuntimeError on failure."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=RUN_PATIENCE_S, check=False
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise RuntimeError(lines[-1].removeprefix("procscope: "))
    return [part.strip("\n").splitlines() for part in done.stdout.split(SEPARATOR)]


def compare(question: Question, host: list[str], container: list[str]) -> None:
    """Print both answers, line under line."""
    print(f"$ {question.shown}")
    if question.shown.startswith("free"):
        print(" " * WIDTH + host[0])
        host, container = host[1:], container[1:]
    for ours, theirs in zip(host, container, strict=False):
        print(f"{'  host':<{WIDTH}}{ours.rstrip()}")
        print(f"{'  container':<{WIDTH}}{theirs.rstrip()}")
    print()


def show_own_cgroup() -> None:
    """Print the facts of the host's files beside those of our own cgroup's views."""
    rows = [("", "host", "own cgroup")]
    for field in ("MemTotal", "MemFree", "MemAvailable", "SwapTotal"):
        rows.append((field, meminfo(host_file("meminfo"), field), meminfo(view("meminfo"), field)))
    rows.append(("CPUs", cpus(host_file("stat")), cpus(view("stat"))))
    for name in ("uptime", "loadavg"):
        rows.append((name, host_file(name).strip(), view(name).strip()))
    for name, host, own in rows:
        print(f"  {name:<14}{host:<32}{own}")


def host_file(name: str) -> str:
    """Return a file of /proc."""
    return Path("/proc", name).read_text()


def view(name: str) -> str:
    """Return the view that `procscope show` prints; empty where it cannot."""
    done = subprocess.run(
        [PROCSCOPE, "show", name], capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout


def meminfo(text: str, field: str) -> str:
    """Return one field of a meminfo text, a dash where it is missing."""
    found = [
        line.split(":")[1].strip() for line in text.splitlines() if line.startswith(f"{field}:")
    ]
    return found[0] if found else "-"


def cpus(text: str) -> str:
    """Return how many CPUs a stat text has."""
    return str(sum(line.startswith("cpu") and line[3].isdigit() for line in text.splitlines()))


if __name__ == "__main__":
    sys.exit(main())
