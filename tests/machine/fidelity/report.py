"""The page docs/fidelity.md: the table of tools and facts, and what cannot agree, with the reason.

The part between the markers follows from what agrees alone, and is the same in every run. The
figures below it are those of the run that wrote the page.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.machine.fidelity.facts import FACTS, Cell
from tests.machine.fidelity.subjects import CONTAINERS, LARGE, MACHINE, SMALL

PAGE = Path(__file__).resolve().parents[3] / "docs" / "fidelity.md"
BEGIN = "<!-- agreement: written by python3 -m tests.machine.fidelity -->"
END = "<!-- end of agreement -->"

_AFFINITY = (
    "It asks sched_getaffinity(2), which no file can answer. `procscope run --cpus` also sets a "
    "cpuset, so there it agrees; `docker run --cpus` does not: add `--cpuset-cpus`."
)
_SYSINFO = (
    "It asks sysinfo(2), which no file can answer. So does `free` in Alpine images, which is "
    "busybox's."
)
REASONS: Mapping[tuple[str, str], str] = {
    ("CPUs", "nproc"): _AFFINITY,
    ("CPUs", "nproc --all"): (
        "It reads `/sys/devices/system/cpu`, but takes the larger sched_getaffinity(2) instead "
        "when that says 1 or 2. With 3 CPUs or more it agrees."
    ),
    ("CPUs", "busybox nproc"): _AFFINITY,
    ("CPUs", "python os.sched_getaffinity()"): _AFFINITY + " Go's runtime and musl do the same.",
    ("CPUs", "lscpu, NUMA lines"): "`/sys/devices/system/node` is the host's.",
    ("memory", "busybox free"): _SYSINFO,
    ("swap", "busybox free"): _SYSINFO,
    ("load", "psutil"): (
        "It is getloadavg(3), which asks sysinfo(2) in newer releases of glibc and reads "
        "`/proc/loadavg` in older ones."
    ),
    ("uptime", "psutil.boot_time()"): (
        "It is `btime` of `/proc/stat`, which stays the host's, because the start times of "
        "processes are counted from it."
    ),
    ("disk", "iostat"): (
        "It reads `/sys/block/*/stat`, which is the host's. `iostat -p ALL` reads "
        "`/proc/diskstats`."
    ),
}
"""Why a tool's word on a fact does not agree everywhere."""

BY_CHANCE = frozenset({("disk", "iostat"), ("load", "psutil")})
"""Where the host's number, which they tell, may be the right one when little else happens."""

_OTHERS = (
    ("`vmstat`: bi, bo, si, so, in, cs", "`/proc/vmstat`, `intr` and `ctxt` are the host's."),
    ("`/proc/pressure` in Docker", "runc refuses mounts there; `procscope run` and crun do not."),
    ("processes", "Those that a tool lists are those of the PID namespace, not of a view."),
)


def agreement(cells: Sequence[Cell]) -> str:
    """The tables of what agrees and what does not, with the markers."""
    lines = [BEGIN, "", *_grid(cells), "", *_exceptions(cells), "", END]
    return "\n".join(lines)


def _grid(cells: Sequence[Cell]) -> Iterator[str]:
    words = {(cell.tool, cell.fact): _word(cell) for cell in cells}
    titles = [fact.title for fact in FACTS]
    yield _row(["tool", *titles])
    yield _row(["---"] * (len(titles) + 1))
    for tool in sorted({cell.tool for cell in cells}):
        yield _row([f"`{tool}`", *(words.get((tool, title), "") for title in titles)])


def agreeing(cell: Cell) -> tuple[str, ...]:
    """The kinds of container that tell the fact, and not by chance."""
    return () if (cell.fact, cell.tool) in BY_CHANCE else tuple(cell.agreeing)


def is_expected(cell: Cell) -> bool:
    """Whether the fact is told in every kind of container, or there is a reason why it is not."""
    return (agreeing(cell) == CONTAINERS) != ((cell.fact, cell.tool) in REASONS)


def _word(cell: Cell) -> str:
    if agreeing(cell) == CONTAINERS:
        return "yes"
    return ", ".join(agreeing(cell)) or "no"


def _exceptions(cells: Sequence[Cell]) -> Iterator[str]:
    yield _row(["what does not agree", "fact", "agrees in", "why"])
    yield _row(["---"] * 4)
    for cell in cells:
        if agreeing(cell) != CONTAINERS:
            reason = REASONS.get((cell.fact, cell.tool), "**not known**")
            where = ", ".join(agreeing(cell)) or "none"
            yield _row([f"`{cell.tool}`", cell.fact, where, reason])


def page(cells: Sequence[Cell], kernel: str) -> str:
    """The whole page."""
    facts = [f"- **{fact.title}**: {fact.meaning}." for fact in FACTS]
    others = [_row([what, why]) for what, why in _OTHERS]
    figures = [
        _row([f"`{cell.tool}`", cell.fact, *(cell.values[name] for name in _SUBJECTS)])
        for cell in cells
    ]
    return "\n".join(
        (
            *_INTRODUCTION,
            *facts,
            "",
            agreement(cells),
            "",
            "What else a tool may show that is not the container's:",
            "",
            _row(["what", "why"]),
            _row(["---"] * 2),
            *others,
            "",
            f"## Figures of one run (Linux {kernel}, emulated)",
            "",
            "The machine's own columns of time fall short of its age: its kernel counts timer",
            "ticks, of which an emulated one gets too few. A container's are counted by time.",
            "",
            _row(["tool", "fact", *_SUBJECTS]),
            _row(["---"] * (len(_SUBJECTS) + 2)),
            *figures,
            "",
        )
    )


def agreement_of_page() -> str:
    """The agreement that is written in docs/fidelity.md; empty where there is none."""
    text = PAGE.read_text() if PAGE.exists() else ""
    return text[text.find(BEGIN) : text.find(END) + len(END)] if BEGIN in text else ""


def _row(columns: Sequence[str]) -> str:
    return f"| {' | '.join(columns)} |"


_SUBJECTS = (MACHINE, *CONTAINERS)
_INTRODUCTION = (
    f"""\
# Fidelity

Does a container look like a machine of its size? The same tools run in both, on cgroup v2:

- **machine**: {SMALL.cpus} CPUs, 1 GiB of memory, {SMALL.swap_mib} MiB of swap.
- **containers** of that size on a machine with {LARGE.cpus} CPUs, {LARGE.memory_mib} MiB of memory
  and {LARGE.swap_mib} MiB of swap, made by
  `procscope run --cpus 2 --memory … --memory-swap …`, and with the same options by
  `docker run $(procscope docker-args)` (runc) and `podman run $(procscope docker-args)` (crun).

`make test-machine` measures all of this anew and fails where the page is wrong;
`python3 -m tests.machine.fidelity` writes the page. A cell of the table says whether what the tool
tells agrees in all three containers, or names those where it does. What is not as expected is
measured again, twice at most: an emulated machine may stand still, and its kernel may take or free
some MiB of its own. What is wrong of a view is wrong each time. The facts:
""",
)
