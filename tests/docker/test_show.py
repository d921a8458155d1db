"""`procscope show --container`: from the host, the same as the container sees."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.conftest import Run
from tests.docker.engine import Engine
from tests.docker.readings import meminfo
from tests.docker.serving import PROCSCOPE, procscope

ENGINES_FOLDER = Path("/var/lib/docker")
MOVES_KB = 4096
"""What a `docker exec` and its process may use."""


@pytest.fixture
def engines_folder() -> Iterator[Path]:
    """Where the engine keeps its state by default, and names are looked for."""
    there = ENGINES_FOLDER.exists()
    ENGINES_FOLDER.mkdir(exist_ok=True)
    yield ENGINES_FOLDER
    if not there:
        ENGINES_FOLDER.rmdir()


def show_by_name(engine: Engine, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `procscope show` where our engine's state is at the default place."""
    script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    where = (str(engine.data_root), str(folder))
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *where, *PROCSCOPE, "show", *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_by_id_or_name_it_is_what_the_container_sees(
    engine: Engine, run: Run, views: tuple[str, ...], engines_folder: Path
) -> None:
    container = run("-m", "256m", "--name", "web", *views)
    inside = meminfo(container.read("/proc/meminfo"))
    for wanted in (container.id, container.id[:12], "web"):
        shown = show_by_name(engine, engines_folder, "meminfo", "--container", wanted)
        assert shown.returncode == 0, shown.stderr
        fields = meminfo(shown.stdout)
        assert list(fields) == list(inside)
        for name, kb in fields.items():
            assert kb == pytest.approx(inside[name], abs=MOVES_KB), name
        assert fields["MemTotal"] == inside["MemTotal"] == 256 * 1024


def test_cpuinfo_is_the_same_byte_for_byte(run: Run, article: tuple[str, ...]) -> None:
    container = run("--cpus", "1", *article)
    shown = procscope("show", "cpuinfo", "--container", container.id)
    # The clock of a CPU changes by itself.
    assert _without_clock(shown.stdout) == _without_clock(container.read("/proc/cpuinfo"))


def _without_clock(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("cpu MHz")]


def test_an_unknown_name_is_told_what_there_is(
    engine: Engine, run: Run, engines_folder: Path
) -> None:
    run("--name", "one-that-is-there")
    shown = show_by_name(engine, engines_folder, "meminfo", "--container", "nobody")
    assert shown.returncode != 0
    assert shown.stdout == ""
    assert len(shown.stderr.splitlines()) == 1
    assert "nobody" in shown.stderr
    assert "one-that-is-there" in shown.stderr
