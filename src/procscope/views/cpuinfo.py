"""`/proc/cpuinfo` with the visible CPUs only.

The format is each architecture's own: `show_cpuinfo()` in `arch/*/kernel/`. Two shapes exist.
Most have one paragraph per CPU that begins with `processor : N`, some (ppc64) with a paragraph
about the machine behind them. s390x begins with a paragraph about the machine, which counts the
CPUs and gives each a line `processor N: …`, and goes on with paragraphs of `cpu number : N`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection

from procscope.ids import CpuId

_CPU_PARAGRAPH = re.compile(rb"(?:processor|cpu number)[ \t]*:[ \t]*(\d+)(?=\n|\Z)")
_S390X_CPU_LINE = re.compile(rb"^processor (\d+): .*\n?", re.MULTILINE)
_S390X_CPU_COUNT = re.compile(rb"^(# processors[ \t]*: )\d+$", re.MULTILINE)
_PACKAGE_KEYS = (b"physical id", b"book id", b"drawer id")
"""s390x numbers its packages within a book, and the books within a drawer."""


def render(host_cpuinfo: bytes, visible: Collection[CpuId]) -> bytes:
    """Return the host's file without the CPUs that are not visible, under their physical ids.

    `siblings` and `cpu cores` count the visible CPUs of the same package and their cores; what
    describes the whole machine stays. A container that sees all CPUs gets identical bytes.

    Raises ValueError where no visible CPU is in the file.
    """
    body = host_cpuinfo.rstrip(b"\n")
    paragraphs = [(_cpu_of(text), text) for text in body.split(b"\n\n")]
    shown = frozenset(visible)
    listed = _listed_cpus(paragraphs)
    if not listed & shown:
        raise ValueError("cpuinfo lists no visible CPU")
    if listed <= shown:
        return host_cpuinfo
    cut: list[bytes | _CpuParagraph] = []
    for cpu, text in paragraphs:
        if cpu is None:
            cut.append(_cut_machine(text, shown))
        elif cpu in shown:
            cut.append(_CpuParagraph(text))
    _count_packages([part for part in cut if isinstance(part, _CpuParagraph)])
    texts = [part if isinstance(part, bytes) else b"\n".join(part.lines) for part in cut]
    return b"\n\n".join(texts) + host_cpuinfo[len(body) :]


def _cpu_of(paragraph: bytes) -> CpuId | None:
    """Return whose paragraph this is; None where it describes the machine."""
    match = _CPU_PARAGRAPH.match(paragraph)
    return CpuId(int(match[1])) if match else None


def _listed_cpus(paragraphs: list[tuple[CpuId | None, bytes]]) -> set[CpuId]:
    listed: set[CpuId] = set()
    for cpu, text in paragraphs:
        listed.update(_s390x_cpus(text) if cpu is None else (cpu,))
    return listed


def _s390x_cpus(machine: bytes) -> set[CpuId]:
    return {CpuId(int(number)) for number in _S390X_CPU_LINE.findall(machine)}


class _CpuParagraph:
    """The lines of one CPU's paragraph, `name : value` each."""

    def __init__(self, text: bytes) -> None:
        self.lines = text.split(b"\n")
        self._place = {
            line.partition(b":")[0].rstrip(): place
            for place, line in enumerate(self.lines)
            if b":" in line
        }
        self.package = tuple(self.value(key) for key in _PACKAGE_KEYS)

    def value(self, name: bytes) -> bytes:
        """Return what stands after `name`; nothing where the architecture has no such line."""
        place = self._place.get(name)
        return b"" if place is None else self.lines[place].partition(b":")[2].strip()

    def count(self, name: bytes, number: int) -> None:
        """Put `number` after `name`, if there is such a line."""
        place = self._place.get(name)
        if place is not None:
            head, colon, _ = self.lines[place].partition(b":")
            self.lines[place] = b"%s%s %d" % (head, colon, number)


def _count_packages(paragraphs: list[_CpuParagraph]) -> None:
    """Put the number of these CPUs, and of their cores, in the same package into each."""
    siblings = Counter(paragraph.package for paragraph in paragraphs)
    cores = Counter(
        package for package, _ in {(part.package, part.value(b"core id")) for part in paragraphs}
    )
    for paragraph in paragraphs:
        paragraph.count(b"siblings", siblings[paragraph.package])
        paragraph.count(b"cpu cores", cores[paragraph.package])


def _cut_machine(paragraph: bytes, shown: frozenset[CpuId]) -> bytes:
    """Return a paragraph about the machine; s390x's with its visible CPUs only."""
    count = len(_s390x_cpus(paragraph) & shown)
    if count == 0:
        return paragraph

    def keep(line: re.Match[bytes]) -> bytes:
        return line[0] if int(line[1]) in shown else b""

    paragraph = _S390X_CPU_LINE.sub(keep, paragraph).rstrip(b"\n")
    return _S390X_CPU_COUNT.sub(rb"\g<1>%d" % count, paragraph)
