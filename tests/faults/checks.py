"""Checks every byte of a file that a reader in a container of known size has read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

FILES = ("meminfo", "stat", "uptime", "cpuinfo", "loadavg")
_MEMINFO_LINE = re.compile(r"([A-Za-z0-9_()]+):\s+(\d+)( kB)?")
_UPTIME = re.compile(r"(\d+)\.(\d\d) (\d+)\.(\d\d)\n")
_LOADAVG = re.compile(r"\d+\.\d\d \d+\.\d\d \d+\.\d\d \d+/\d+ \d+\n")
_CPUINFO_LINE = re.compile(r"[^\t:]+\t*: ?.*")
_PROCESSOR = re.compile(r"^processor\t*: (\d+)$", re.MULTILINE)
_CLOCK_RATE = re.compile(r"^(cpu MHz\t*: )[\d.]+$", re.MULTILINE)
_OF_THE_HOST = ("ctxt", "processes")
"""Counters that are the host's own, whoever reads."""


class WrongError(Exception):
    """What is wrong with a file, in one line."""


class StepBackError(WrongError):
    """A counter that is less than it was at the read before."""


@dataclass(frozen=True, slots=True)
class Share:
    """What a container is known to have."""

    memory_kb: int
    cpus: tuple[int, ...]
    whole_ticks: bool = True
    """Whether the line `cpu` is exactly its parts; the kernel's own is rounded apart."""


@dataclass(frozen=True, slots=True)
class Form:
    """What the files of this kernel look like, whoever reads them."""

    meminfo: tuple[tuple[str, str | None], ...]
    """Names and units, in their order."""
    stat: tuple[str, ...]
    """The first words of the lines that are not of CPUs."""
    stat_columns: int


def host_share(proc: Path = Path("/proc")) -> Share:
    """What a reader sees that is in no container."""
    total_kb = int((proc / "meminfo").read_text().split()[1])
    cpus = _PROCESSOR.findall((proc / "cpuinfo").read_text())
    return Share(total_kb, tuple(map(int, cpus)), whole_ticks=False)


def form_of_host(proc: Path = Path("/proc")) -> Form:
    """Take it from the kernel's own files."""
    stat = [line.split() for line in (proc / "stat").read_text().splitlines()]
    return Form(
        meminfo=tuple((m[1], m[3]) for m in _matches((proc / "meminfo").read_text())),
        stat=tuple(words[0] for words in stat if not words[0].startswith("cpu")),
        stat_columns=len(stat[0]) - 1,
    )


class Checker:
    """Checks what one reader reads, one file after the other."""

    def __init__(self, share: Share, form: Form) -> None:
        self._share = share
        self._form = form
        self._last: dict[str, Sequence[int]] = {}
        self._cpuinfo = ""
        self.host_steps_back = 0
        """How often a counter of the host was less than before."""
        self._checks: dict[str, Callable[[str], None]] = {
            "meminfo": self._meminfo,
            "stat": self._stat,
            "uptime": self._uptime,
            "cpuinfo": self._check_cpuinfo,
            "loadavg": self._loadavg,
        }

    def check(self, name: str, data: bytes) -> None:
        """Raise WrongError where the file is not what this container must see."""
        try:
            text = data.decode("ascii")
        except UnicodeDecodeError:
            raise WrongError("not text") from None
        if not text.endswith("\n"):
            raise WrongError("cut short" if text else "empty")
        self._checks[name](text)

    def _meminfo(self, text: str) -> None:
        found = _matches(text)
        names = tuple((match[1], match[3]) for match in found)
        if names != self._form.meminfo:
            raise WrongError("other names or units than the kernel's")
        fields = {match[1]: int(match[2]) for match in found}
        if fields["MemTotal"] != self._share.memory_kb:
            raise WrongError(f"MemTotal {fields['MemTotal']}, not {self._share.memory_kb}")
        for part in ("MemFree", "MemAvailable", "Cached", "AnonPages"):
            if fields[part] > fields["MemTotal"]:
                raise WrongError(f"{part} is more than MemTotal")

    def _stat(self, text: str) -> None:
        lines = [line.split() for line in text.splitlines()]
        cpus = {words[0]: _numbers(words[1:]) for words in lines if words[0].startswith("cpu")}
        expected = ["cpu", *(f"cpu{cpu}" for cpu in self._share.cpus)]
        if list(cpus) != expected:
            raise WrongError(f"CPUs {list(cpus)}, not {expected}")
        if {len(columns) for columns in cpus.values()} != {self._form.stat_columns}:
            raise WrongError("a line of another length than the kernel's")
        sums = [sum(column) for column in zip(*(cpus[n] for n in expected[1:]), strict=True)]
        if self._share.whole_ticks and sums != list(cpus["cpu"]):
            raise WrongError(f"cpu is {cpus['cpu']}, its parts add up to {sums}")
        rest = {words[0]: _numbers(words[1:]) for words in lines[len(cpus) :]}
        if tuple(rest) != self._form.stat:
            raise WrongError("other lines than the kernel's")
        for name, columns in cpus.items():
            self._never_back(f"stat {name}", columns)
        for name in _OF_THE_HOST:
            if self._went_back(f"stat {name}", rest[name]):
                self.host_steps_back += 1
        if self._last.setdefault("btime", rest["btime"]) != rest["btime"]:
            raise WrongError(f"btime {rest['btime']} was {self._last['btime']}")

    def _uptime(self, text: str) -> None:
        match = _UPTIME.fullmatch(text)
        if match is None:
            raise WrongError("not two numbers")
        age, age_cs, idle, idle_cs = map(int, match.groups())
        self._never_back("uptime", (age * 100 + age_cs, idle * 100 + idle_cs))

    def _check_cpuinfo(self, text: str) -> None:
        for line in text.splitlines():
            if line and not _CPUINFO_LINE.fullmatch(line):
                raise WrongError(f"a line of no form: {line!r}")
        cpus = tuple(map(int, _PROCESSOR.findall(text)))
        if cpus != self._share.cpus:
            raise WrongError(f"processors {cpus}, not {self._share.cpus}")
        without_rate = _CLOCK_RATE.sub(r"\1", text)
        self._cpuinfo = self._cpuinfo or without_rate
        if without_rate != self._cpuinfo:
            raise WrongError("other bytes than at the first read")

    def _loadavg(self, text: str) -> None:
        if not _LOADAVG.fullmatch(text):
            raise WrongError("not the kernel's form")

    def _never_back(self, what: str, numbers: Sequence[int]) -> None:
        before = self._last.get(what, numbers)
        if self._went_back(what, numbers):
            raise StepBackError(f"{what} went back from {before} to {numbers}")

    def _went_back(self, what: str, numbers: Sequence[int]) -> bool:
        before = self._last.get(what, numbers)
        self._last[what] = numbers
        return len(before) != len(numbers) or any(
            old > new for old, new in zip(before, numbers, strict=True)
        )


def _matches(text: str) -> list[re.Match[str]]:
    found = []
    for line in text.splitlines():
        match = _MEMINFO_LINE.fullmatch(line)
        if match is None:
            raise WrongError(f"not a line of meminfo: {line!r}")
        found.append(match)
    return found


def _numbers(words: Sequence[str]) -> tuple[int, ...]:
    try:
        return tuple(map(int, words))
    except ValueError:
        raise WrongError(f"not numbers: {words!r}") from None
