"""The tools' output, parsed: one table for each fact, from a row of the page to its parser.

A parser gets what the tool printed. It raises an error of its own kind where the text is not what
that tool prints; that is a broken test, not a fact.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence

Parser = Callable[[str], float]
IdsParser = Callable[[str], Sequence[int] | int]

SAMPLE_OF: Mapping[str, str] = {
    "lscpu, NUMA lines": "lscpu",
    "node os.availableParallelism()": "node",
    "psutil.boot_time()": "psutil",
    "python os.cpu_count()": "python os",
    "python os.sched_getaffinity()": "python os",
}
"""The sample behind a row that is not named as its tool."""

_ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\)0)|[\x0e\x0f]")
_KIB, _MIB = 1 << 10, 1 << 20


def _one(pattern: str, text: str) -> str:
    """The first group of the only place that matches, or of the first one."""
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise ValueError(f"no {pattern!r} in {text!r}")
    return match[1]


def _all(pattern: str, text: str) -> list[int]:
    return [int(number) for number in re.findall(pattern, text, re.MULTILINE)]


def _field(name: str) -> Parser:
    """A field of JSON, as psutil's and node's are printed."""
    return lambda text: float(json.loads(text)[name])


def _lscpu(text: str) -> dict[str, str]:
    return {entry["field"].rstrip(":"): entry["data"] for entry in json.loads(text)["lscpu"]}


def _cpulist(text: str) -> list[int]:
    ids: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        ids += range(int(first), int(last or first) + 1)
    return ids


def _drawn(text: str) -> str:
    return _ESCAPE.sub(" ", text)


def _of_kb(name: str) -> Parser:
    """A field of meminfo, in bytes."""
    return lambda text: float(_one(rf"^{name}: +(\d+) kB$", text)) * _KIB


def _of_free(line: str, column: int, unit: int) -> Parser:
    return lambda text: float(_one(rf"^{line}:(.*)$", text).split()[column]) * unit


def _of_top(line: str, column: str) -> Parser:
    # With -1 two lines of CPUs, or of memory and swap, may share a line of the terminal.
    return lambda text: float(_one(rf"MiB {line} ?:.*? ([\d.]+) {column}", text)) * _MIB


CPUS: Mapping[str, IdsParser] = {
    "/proc/cpuinfo": lambda text: _all(r"^processor\s*: (\d+)$", text),
    "/proc/stat": lambda text: _all(r"^cpu(\d+) ", text),
    "cpuN folders": lambda text: sorted(_all(r"/cpu(\d+)$", text)),
    "getconf": lambda text: _all(r"(\d+)", text),
    "htop": lambda text: _all(r"(\d+)\s*\[[^\]]*%\s*\]", _bars(text)),
    "iostat -c": lambda text: int(_one(r"\((\d+) CPU\)", text)),
    "lscpu": lambda text: _cpulist(_lscpu(text)["On-line CPU(s) list"]),
    "lscpu, NUMA lines": lambda text: _cpulist(_lscpu(text)["NUMA node0 CPU(s)"]),
    "mpstat": lambda text: sorted(set(_all(r"^[\d:]+ +(\d+) ", text))),
    "node": lambda text: int(_field("cpus")(text)),
    "node os.availableParallelism()": lambda text: int(_field("parallelism")(text)),
    "nproc": int,
    "nproc --all": int,
    "busybox nproc": int,
    "psutil": lambda text: [json.loads(text)["cpu_count"], len(json.loads(text)["cpu_times"])],
    "python os.cpu_count()": lambda text: int(text.split()[0]),
    "python os.sched_getaffinity()": lambda text: int(text.split()[1]),
    "top": lambda text: _all(r"%Cpu(\d+)", text),
}


def _bars(text: str) -> str:
    """The lines of htop's bars, one after the other, without what lies between them."""
    return _drawn(text).partition("Mem")[0]


CORES: Mapping[str, Callable[[str], Sequence[str]]] = {
    "lscpu": lambda text: [
        _lscpu(text)[name]
        for name in ("Socket(s)", "Core(s) per socket", "Thread(s) per core", "L1d cache")
    ],
}

MEMORY: Mapping[str, Parser] = {
    "/proc/meminfo": _of_kb("MemTotal"),
    "free -b": _of_free("Mem", 0, 1),
    "free -k": _of_free("Mem", 0, _KIB),
    "busybox free": _of_free("Mem", 0, _KIB),
    "htop": lambda text: float(_one(r"Mem\s*\[[^/\]]*/(\d+)M\s*\]", _drawn(text))) * _MIB,
    "node": _field("total"),
    "psutil": _field("total"),
    "top": _of_top("Mem", "total"),
    "vmstat -s": lambda text: float(_one(r"^ *(\d+) k total memory$", text)) * 1000,
}

SWAP: Mapping[str, Parser] = {
    "/proc/meminfo": _of_kb("SwapTotal"),
    "/proc/swaps": lambda text: sum(float(x.split()[2]) for x in text.splitlines()[1:]) * _KIB,
    "free -b": _of_free("Swap", 0, 1),
    "free -k": _of_free("Swap", 0, _KIB),
    "busybox free": _of_free("Swap", 0, _KIB),
    "htop": lambda text: float(_one(r"Swp\s*\[[^/\]]*/(\d+)M\s*\]", _drawn(text))) * _MIB,
    "psutil": _field("swap"),
    "swapon": float,
    "top": _of_top("Swap", "total"),
    "vmstat -s": lambda text: float(_one(r"^ *(\d+) k total swap$", text)) * 1000,
}

USED: Mapping[str, Parser] = {
    "/proc/meminfo": lambda text: -_of_kb("MemFree")(text),
    "free -b": _of_free("Mem", 1, 1),
    "node": lambda text: -_field("free")(text),
    "psutil": _field("used"),
    "top": _of_top("Mem", "used"),
    "vmstat -s": lambda text: float(_one(r"^ *(\d+) k used memory$", text)) * 1000,
}

CPU_SECONDS: Mapping[str, Callable[[str], list[float]]] = {
    "/proc/stat": lambda text: [
        sum(map(int, line.split()[1:9])) / 100
        for line in text.splitlines()
        if re.match(r"cpu\d", line)
    ],
    "psutil": lambda text: [sum(columns) for columns in json.loads(text)["cpu_times"]],
}

UPTIME: Mapping[str, Parser] = {
    "/proc/uptime": lambda text: float(text.split()[0]),
    "htop": lambda text: _clock(_one(r"Uptime:\s+(\d+:\d+:\d+)", _drawn(text))),
    "node": _field("uptime"),
    "psutil.boot_time()": lambda text: _field("now")(text) - _field("boot_time")(text),
    "top": lambda text: float(_one(r" up (\d+) min,", text)) * 60,
    "uptime": lambda text: float(_one(r" up (\d+) min,", text)) * 60,
    "uptime -s": lambda text: _clock(text.split()[3]) - _clock(text.split()[1]),
}
UPTIME_STEP_S: Mapping[str, tuple[float, float]] = {
    "htop": (1, 0),
    "psutil.boot_time()": (2, 2),
    "top": (60, 0),
    "uptime": (60, 0),
    "uptime -s": (2, 2),
}
"""By how much rounding may make it less and more; the others print hundredths."""


def _clock(text: str) -> float:
    hours, minutes, seconds = map(int, text.split(":"))
    return hours * 3600 + minutes * 60 + seconds


LOAD: Mapping[str, Parser] = {
    "/proc/loadavg": lambda text: float(text.split()[0]),
    "htop": lambda text: float(_one(r"Load average:\s+([\d.]+) ", _drawn(text))),
    "node": lambda text: float(json.loads(text)["load"][0]),
    "psutil": lambda text: float(json.loads(text)["load"][0]),
    "top": lambda text: float(_one(r"load average: ([\d.]+),", text)),
    "uptime": lambda text: float(_one(r"load average: ([\d.]+),", text)),
}


def _last(pattern: str, text: str) -> list[float]:
    """The numbers of the last line that matches."""
    line = [line for line in text.splitlines() if re.search(pattern, line)][-1]
    return [float(number) for number in re.findall(r"\d+\.?\d*", line)]


# us, sy, ni, id, wa, hi, si, st or whatever part of it the tool has; idle, iowait and steal last.
def _mpstat(text: str) -> list[float]:
    columns = _last(r"^Average: +all ", text)
    return [*columns[:3], *columns[4:6], *columns[7:9], columns[9], columns[3], columns[6]]


def _top(text: str) -> list[float]:
    us, sy, ni, idle, wa, hi, si, st = _last(r"^%Cpu\(s\):", text)
    return [us, sy, ni, hi, si, idle, wa, st]


def _vmstat(text: str) -> list[float]:
    us, sy, idle, wa, st, _ = _last(r"^[\d ]+$", text)[12:18]
    return [us, sy, idle, wa, st]


def _iostat(text: str) -> list[float]:
    us, ni, sy, wa, st, idle = _last(r"^[\d. ]+$", text)
    return [us, ni, sy, idle, wa, st]


PERCENTAGES: Mapping[str, Callable[[str], list[float]]] = {
    "iostat -c": _iostat,
    "mpstat": _mpstat,
    "top": _top,
    "vmstat": _vmstat,
}


WRITTEN: Mapping[str, Parser] = {
    "/proc/diskstats": lambda text: sum(float(line.split()[9]) for line in text.splitlines()) * 512,
    "iostat": lambda text: _column_sum(text, 6, _KIB),
    "iostat -p": lambda text: _column_sum(text, 6, _KIB),
    "psutil": _field("written"),
    "vmstat -d": lambda text: _column_sum(text, 7, 512),
}


def _column_sum(text: str, column: int, unit: int) -> float:
    lines = [line.split() for line in text.splitlines() if re.match(r"vd[a-z] ", line)]
    return sum(float(fields[column]) for fields in lines) * unit
