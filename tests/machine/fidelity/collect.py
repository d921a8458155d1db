"""Runs inside a machine or a container: what its tools print, at rest and under load, as JSON.

Standard library only, and no import of the project: the file is run where it lies, on its own.
Usage: collect.py machine|container [PART …]; the first word says where the age of the subject is
counted from.
"""

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from typing import Any

TOUCHED_BYTES = 100 << 20
WRITTEN_BYTES = 64 << 20
LOAD_S = 5
USER_HZ = os.sysconf("SC_CLK_TCK")
SCREEN = (40, 120)
DISK_FILE = "/var/tmp/fidelity-disk"

PSUTIL = """
import json, psutil as p, time
disk = p.disk_io_counters()
print(json.dumps({
    "cpu_count": p.cpu_count(), "cpu_times": [list(t[:8]) for t in p.cpu_times(percpu=True)],
    "total": p.virtual_memory().total, "used": p.virtual_memory().used,
    "available": p.virtual_memory().available, "swap": p.swap_memory().total,
    "load": p.getloadavg(), "boot_time": p.boot_time(), "now": time.time(),
    "written": disk.write_bytes if disk else 0,
}))
"""
NODE = (
    "JSON.stringify({cpus: os.cpus().length, total: os.totalmem(), free: os.freemem(),"
    " uptime: os.uptime(), load: os.loadavg(), parallelism: os.availableParallelism(),"
    " times: os.cpus().map(c => Object.values(c.times))})"
)

AT_REST: dict[str, str] = {
    "/proc/cpuinfo": "cat /proc/cpuinfo",
    "/proc/loadavg": "cat /proc/loadavg",
    "/proc/meminfo": "cat /proc/meminfo",
    "/proc/stat": "cat /proc/stat",
    "/proc/swaps": "cat /proc/swaps",
    "/proc/uptime": "cat /proc/uptime",
    "cpuN folders": "ls -d /sys/devices/system/cpu/cpu[0-9]*",
    "free -b": "free -b",
    "free -k": "free -k",
    "getconf": "getconf _NPROCESSORS_ONLN; getconf _NPROCESSORS_CONF",
    "iostat -c": "iostat -c",
    "lscpu": "lscpu -J",
    "mpstat": "mpstat -P ALL",
    "node": f"node -p '{NODE}'",
    "nproc": "nproc",
    "nproc --all": "nproc --all",
    "psutil": f"python3 -c '{PSUTIL}'",
    "python os": "python3 -c 'import os; print(os.cpu_count(), len(os.sched_getaffinity(0)))'",
    "swapon": "swapon --show=SIZE --noheadings --bytes",
    "top": "top -b -n 1 -1 -w 120",
    "uptime": "uptime",
    "uptime -s": "uptime -s; date '+%F %T'",
    "vmstat -s": "vmstat -s -S k",
    "busybox free": "busybox free",
    "busybox nproc": "busybox nproc",
}
OF_MEMORY = ("/proc/meminfo", "free -b", "node", "psutil", "top", "vmstat -s")
# The slowest last.
OF_LOAD = ("/proc/loadavg", "uptime", "top", "psutil", "node")
PERCENTAGES: dict[str, str] = {
    "iostat -c": f"iostat -c {LOAD_S} 2",
    "mpstat": f"mpstat -P ALL {LOAD_S} 1",
    "top": f"top -b -d {LOAD_S} -n 2 -w 120",
    "vmstat": f"vmstat {LOAD_S} 2",
}
PSUTIL_PERCENT = f"python3 -c 'import psutil as p; print(p.cpu_percent({LOAD_S}))'"
# Frees and takes the memory in turn, at each line that it is given.
HOLDER = f"""
import sys
held = b"x"
for line in sys.stdin:
    held = b"" if held else b"x" * {TOUCHED_BYTES}
    print(flush=True)
"""
OF_DISKS: dict[str, str] = {
    "/proc/diskstats": "cat /proc/diskstats",
    "iostat": "iostat -d -k",
    "iostat -p": "iostat -d -k -p ALL",
    "psutil": AT_REST["psutil"],
    "vmstat -d": "vmstat -d -w",
}

Sample = dict[str, Any]


class Collector:
    """Samples of tools, each with the subject's true age before and after it ran."""

    def __init__(self, *, machine: bool) -> None:
        self.born_s = 0.0 if machine else _start_of_init_s()

    def age_s(self) -> float:
        """Seconds since the subject began, by the kernel's own clock and not by a file."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.born_s

    def sample(self, run: Callable[[], str]) -> Sample:
        """What a tool printed, and when."""
        before = self.age_s()
        return {"text": run(), "age_s": [before, self.age_s()]}

    def tools(self, commands: dict[str, str]) -> dict[str, Sample]:
        """One sample of each command, one after the other."""
        return {
            name: self.sample(lambda command=command: _output(command))  # type: ignore[misc]
            for name, command in commands.items()
        }

    def rest(self) -> dict[str, Any]:
        """Every tool on an idle subject."""
        return {**self.tools(AT_REST), "htop": self.sample(_htop)}

    def memory(self) -> dict[str, Any]:
        """Each memory tool before and while a process holds 100 MiB that it has written to."""
        before: dict[str, Sample] = {}
        after: dict[str, Sample] = {}
        with subprocess.Popen(
            ["python3", "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        ) as holder:
            for name in OF_MEMORY:
                _turn(holder)
                before |= self.tools({name: AT_REST[name]})
                _turn(holder)
                after |= self.tools({name: AT_REST[name]})
            assert holder.stdin is not None
            holder.stdin.close()
        return {"before": before, "after": after}

    def load(self) -> dict[str, Any]:
        """Percentages over some seconds of one busy loop, and the load average behind it."""
        before = self.sample(lambda: _output(AT_REST["/proc/loadavg"]))
        busy = subprocess.Popen(["sh", "-c", "while :; do :; done"])
        try:
            percentages = _percentages()
            after = self.tools({name: AT_REST[name] for name in OF_LOAD})
            after["htop"] = self.sample(_htop)
        finally:
            busy.kill()
            busy.wait()
        return {"before": before, "percentages": percentages, "after": after}

    def disk(self) -> dict[str, Any]:
        """The disk tools before and after 64 MiB are written past the page cache."""
        os.sync()
        before = self.tools(OF_DISKS)
        _output(f"dd if=/dev/zero of={DISK_FILE} bs=1M count={WRITTEN_BYTES >> 20} oflag=direct")
        after = self.tools(OF_DISKS)
        os.unlink(DISK_FILE)
        return {"before": before, "after": after}


def _turn(holder: "subprocess.Popen[bytes]") -> None:
    """Have the holder free what it holds, or take it again, and wait until it has done so."""
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdin.write(b"\n")
    holder.stdout.read(1)


def _start_of_init_s() -> float:
    """When this PID namespace's first process was started, in seconds of CLOCK_BOOTTIME."""
    with open("/proc/1/stat", encoding="ascii", errors="replace") as file:
        # Field 22 of proc_pid_stat(5), counted from behind the comm.
        return int(file.read().rpartition(")")[2].split()[19]) / USER_HZ


def _percentages() -> dict[str, str]:
    """What the tools say of a few seconds."""
    together = {name: _start(command) for name, command in PERCENTAGES.items()}
    told = {name: process.communicate()[0] for name, process in together.items()}
    # psutil takes the CPU for a while to start, which the others would tell of.
    return {**told, "psutil": _output(PSUTIL_PERCENT)}


def _start(command: str) -> "subprocess.Popen[str]":
    """Start a command in a fixed language and time zone; its errors go where ours go."""
    env = os.environ | {"LC_ALL": "C.UTF-8", "TZ": "UTC", "S_TIME_FORMAT": "ISO"}
    return subprocess.Popen(
        command, shell=True, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env
    )


def _output(command: str) -> str:
    return _start(command).communicate()[0]


def _htop() -> str:
    """What htop draws on a terminal within two refreshes, as the terminal receives it."""
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", *SCREEN, 0, 0))
        os.environ.update(TERM="linux", HTOPRC="/dev/null", LC_ALL="C")
        os.execvp("htop", ["htop", "--no-color", "--no-mouse", "--delay=5"])
    drawn = bytearray()
    # `F10Quit` at the end of the last line is the last word of the first screen.
    while b"Quit" not in drawn and _read_into(drawn, terminal):
        pass
    os.write(terminal, b"q")
    while _read_into(drawn, terminal):
        pass
    os.waitpid(pid, 0)
    os.close(terminal)
    return drawn.decode(errors="replace")


def _read_into(drawn: bytearray, terminal: int) -> bool:
    """Add what comes next; False at the end, or when nothing has come for long."""
    if not select.select([terminal], [], [], 20)[0]:
        return False
    try:
        part = os.read(terminal, 65536)
    except OSError:  # EIO: the program has closed its end
        return False
    drawn += part
    return bool(part)


def main() -> None:
    """Print one JSON object with every part, or with those that were asked for."""
    subject, *wanted = sys.argv[1:]
    collector = Collector(machine=subject == "machine")
    # At rest last: the subject is older then, and what must add up has had time not to.
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "load": collector.load,
        "memory": collector.memory,
        "disk": collector.disk,
        "rest": collector.rest,
    }
    json.dump({name: parts[name]() for name in wanted or parts}, sys.stdout)


if __name__ == "__main__":
    main()
