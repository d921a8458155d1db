"""The facts: what each tool told in each subject, and whether a container's agrees.

A cell is one tool's word on one fact. It agrees when the container's value is the small machine's
within the tolerance of that fact, which is stated beside it.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.machine.fidelity import tools
from tests.machine.fidelity.subjects import CONTAINERS, MACHINE, Record

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Fact:
    """A column of the table."""

    title: str
    part: str
    """Of what collect.py collects, that which has it."""
    meaning: str
    """What is compared, and how closely, in words for the page."""
    tools: tuple[str, ...]
    value: Callable[[Record, str], Any]
    """What a tool told of it."""
    agrees: Callable[[Any, Any], bool]
    """Of the machine's value and the container's."""
    shown: Callable[[Any], str]


@dataclass(frozen=True, slots=True)
class Cell:
    """One tool's word on one fact in every subject."""

    fact: str
    tool: str
    values: Mapping[str, str]
    """As text, by subject."""
    agreeing: tuple[str, ...]
    """The containers that agree with the machine."""


def _at_rest(table: Mapping[str, Callable[[str], object]]) -> Callable[[Record, str], object]:
    def value(record: Record, tool: str) -> object:
        return table[tool](record["rest"][tools.SAMPLE_OF.get(tool, tool)]["text"])

    return value


def _growth(part: str, table: Mapping[str, tools.Parser]) -> Callable[[Record, str], float]:
    """How many MiB a tool's number has grown by, from before to after."""

    def value(record: Record, tool: str) -> float:
        before, after = (table[tool](record[part][when][tool]["text"]) for when in _WHEN)
        return (after - before) / _MIB

    return value


_WHEN = ("before", "after")


def _surplus_s(record: Record, tool: str) -> float:
    """By how much the worst CPU's columns differ from the subject's age.

    The columns are of some moment while the tool ran: within that time nothing differs.
    """
    sample = record["rest"][tool]
    first, last = map(float, sample["age_s"])
    seconds = tools.CPU_SECONDS[tool](sample["text"])
    return max(max(first - of_cpu, of_cpu - last, 0.0) for of_cpu in seconds)


def _percent_sum(record: Record, tool: str) -> float:
    return sum(tools.PERCENTAGES[tool](record["load"]["percentages"][tool]))


def _busy_percent(record: Record, tool: str) -> float:
    text = record["load"]["percentages"][tool]
    if tool == "psutil":
        return float(text)
    # idle, iowait and steal are the last three
    return sum(tools.PERCENTAGES[tool](text)[:-3])


def _uptime_error_s(record: Record, tool: str) -> float:
    """By how much a tool's uptime is outside the true one, beyond what the tool rounds to."""
    sample = record["rest"][tools.SAMPLE_OF.get(tool, tool)]
    first, last = map(float, sample["age_s"])
    told = tools.UPTIME[tool](sample["text"])
    less, more = tools.UPTIME_STEP_S.get(tool, (0.01, 0.01))
    return max(first - less - told, told - last - more, 0.0)


def _load_rise(record: Record, tool: str) -> float:
    before = tools.LOAD["/proc/loadavg"](record["load"]["before"]["text"])
    return tools.LOAD[tool](record["load"]["after"][tool]["text"]) - before


def _within(tolerance: float) -> Callable[[float, float], bool]:
    return lambda machine, container: abs(machine - container) <= tolerance


def _same_total(machine: float, container: float) -> bool:
    return math.isclose(machine, container, rel_tol=0.001)


def _half(_machine: float, container: float) -> bool:
    """Of two CPUs' time; what starting the tools takes is on top.

    The machine's own percentage is no measure: an emulator that waits for its host loses ticks.
    """
    return abs(container - 50) <= 10


def _exact(_machine: float, container: float) -> bool:
    """Of an error in seconds; the machine's own may be larger, as its kernel counts in ticks."""
    return container <= 0.05


def _equal(machine: object, container: object) -> bool:
    return machine == container


def _mib(value: float) -> str:
    return f"{value / _MIB:.1f} MiB"


def _number(unit: str, digits: int = 2) -> Callable[[float], str]:
    return lambda value: f"{value:.{digits}f}{unit}"


FACTS = (
    Fact(
        "CPUs", "rest",
        "the same CPUs, by their ids where the tool tells them",
        tuple(tools.CPUS), _at_rest(tools.CPUS), _equal, str,
    ),
    Fact(
        "cores", "rest",
        "sockets, cores, threads and the size of all first-level caches together",
        tuple(tools.CORES), _at_rest(tools.CORES), _equal, ", ".join,
    ),
    Fact(
        "memory", "rest",
        "the total, within 0.1 %",
        tuple(tools.MEMORY), _at_rest(tools.MEMORY), _same_total, _mib,
    ),
    Fact(
        "swap", "rest",
        "the total, within 0.1 %",
        tuple(tools.SWAP), _at_rest(tools.SWAP), _same_total, _mib,
    ),
    Fact(
        "100 MiB", "memory",
        "what is used more after a process has written to 100 MiB, within 5 MiB",
        tuple(tools.USED), _growth("memory", tools.USED), _within(5), _number(" MiB"),
    ),
    Fact(
        "sum of time", "rest",
        "each CPU's columns add up to the age, within 0.05 s",
        tuple(tools.CPU_SECONDS), _surplus_s, _exact, _number(" s off"),
    ),
    Fact(
        "sum of %", "load",
        "the percentages add up to 100, within 2",
        tuple(tools.PERCENTAGES), _percent_sum, _within(2), _number(" %"),
    ),
    Fact(
        "busy loop", "load",
        "percent of both CPUs that one loop takes over 5 s: 50, within 10 points",
        (*tools.PERCENTAGES, "psutil"), _busy_percent, _half, _number(" %"),
    ),
    Fact(
        "uptime", "rest",
        "the time since the first process started, to the tool's last digit",
        tuple(tools.UPTIME), _uptime_error_s, _exact, _number(" s off"),
    ),
    Fact(
        "load", "load",
        "the rise of the first load average, within 0.6, while a neighbour has a load of 8",
        tuple(tools.LOAD), _load_rise, _within(0.6), _number(""),
    ),
    Fact(
        "disk", "disk",
        "64 MiB written past the page cache, within 2 %, while a neighbour writes too",
        tuple(tools.WRITTEN), _growth("disk", tools.WRITTEN), _within(1.28), _number(" MiB"),
    ),
)  # fmt: skip


def cells(records: Mapping[str, Record]) -> Iterator[Cell]:
    """Every tool's word on every fact of the parts that were collected."""
    for fact in FACTS:
        if fact.part not in records[MACHINE]:
            continue
        for tool in fact.tools:
            values = {name: fact.value(record, tool) for name, record in records.items()}
            agreeing = (name for name in CONTAINERS if fact.agrees(values[MACHINE], values[name]))
            shown = {name: fact.shown(value) for name, value in values.items()}
            yield Cell(fact.title, tool, shown, tuple(agreeing))
