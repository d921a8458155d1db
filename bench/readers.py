"""The containers that read: a small C program, so that no interpreter is in the way."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.cgroups import hierarchies

_SOURCE = Path(__file__).with_name("reader.c")


@dataclass(frozen=True, slots=True)
class Sample:
    """What some reads in a row took."""

    took_ns: tuple[int, ...]
    """Of each: open, read to the end, close."""
    elapsed_ns: int
    """Of all, pauses included."""
    switches: int
    """Context switches of the readers."""


@dataclass(frozen=True, slots=True)
class Rush:
    """What containers that read at once got done."""

    reads: int
    elapsed_ns: int


class Readers:
    """Containers with a process each, which read when told to."""

    def __init__(self, process: subprocess.Popen[str], count: int) -> None:
        self._process = process
        self.count = count

    def read(
        self,
        path: str,
        reads: int,
        *,
        pause_usec: int = 0,
        first: int = 0,
    ) -> Sample:
        """Have one container read so often, with a pause before each read."""
        return self._sample(f"read {path} {first} 1 1 {reads} {pause_usec}")

    def read_round_robin(self, path: str, count: int, turns: int, *, pause_usec: int) -> Sample:
        """Have the first `count` containers read one after the other, `turns` times round."""
        return self._sample(f"read {path} 0 {count} {turns} 1 {pause_usec}")

    def rush(self, path: str, count: int, msec: int) -> Rush:
        """Have so many containers read at once, as fast as they can."""
        elapsed_ns, reads = map(int, self._ask(f"rush {path} {count} {msec}").split())
        return Rush(reads, elapsed_ns)

    def first_line(self, path: str, index: int = 0) -> str:
        """Return the first line of what a container reads."""
        return self._ask(f"first {path} {index}")

    def _sample(self, order: str) -> Sample:
        elapsed_ns, switches, *took_ns = map(int, self._ask(order).split())
        return Sample(tuple(took_ns), elapsed_ns, switches)

    def _ask(self, order: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{order}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"bench: the reader has failed at: {order}")
        return answer.rstrip("\n")


def compile_reader(folder: Path) -> Path:
    """Return the compiled program. It is static: a container needs nothing for it."""
    program = folder / "reader"
    command = ["gcc", "-O2", "-Wall", "-static", "-pthread", "-o", str(program), str(_SOURCE)]
    subprocess.run(command, check=True)
    return program


@contextlib.contextmanager
def started(
    program: Path,
    folder: Path,
    cgroups: Sequence[str],
    binds: Mapping[str, Path],
    *,
    threads: int = 1,
    shared: bool = False,
) -> Iterator[Readers]:
    """Start a process in each of `cgroups`, with `threads` threads, which has bound its files.

    `binds` says what (value) is mounted where (key) below `folder`; it is made if it is not there.
    Paths that are read are relative to `folder` too. With `shared` all have one mount namespace:
    cheaper, where there are thousands, but the pinned tree cannot tell them apart then.
    """
    folder.mkdir(exist_ok=True)
    for target, source in binds.items():
        _make_target(folder / target, is_folder=source.is_dir())
    lines = [
        *(f"hierarchy {one.root}" for one in hierarchies()),
        *(f"bind {source} {target}" for target, source in binds.items()),
        *(["shared"] if shared else []),
        *(f"container {cgroup} {threads}" for cgroup in cgroups),
        "begin",
    ]
    with subprocess.Popen(
        [str(program), str(max(1, len(cgroups)))],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("\n".join(lines) + "\n")
            process.stdin.flush()
            if process.stdout.readline() != "ready\n":
                raise SystemExit("bench: the readers did not start")
            yield Readers(process, len(cgroups))
        finally:
            process.kill()


def _make_target(target: Path, *, is_folder: bool) -> None:
    if is_folder:
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
