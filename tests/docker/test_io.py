"""`iostat` in a container shows what the container has written to a disk, and no other has.

iostat reads `/proc/diskstats` with `-p ALL` only. Without it, it reads `/sys/block/*/stat`, which
are the host's in every container.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docker.conftest import Run
from tests.docker.containers import Container
from tests.docker.readings import iostat_written_kb

WRITTEN_MIB = 64
IOSTAT = ("iostat", "-d", "-k", "-p", "ALL")


def written_kb(container: Container) -> float:
    return sum(iostat_written_kb(container.run(*IOSTAT)).values())


def test_iostat_shows_direct_writes_and_a_sibling_shows_none(
    run: Run, views: tuple[str, ...], disk_folder: Path
) -> None:
    writer = run("-v", f"{disk_folder}:/data", *views)
    sibling = run(*views)
    before_kb = written_kb(writer)
    writer.run("dd", "if=/dev/zero", "of=/data/file", "bs=1M", "count=64", "oflag=direct")
    shown_kb = written_kb(writer) - before_kb
    print(f"{WRITTEN_MIB} MiB by dd oflag=direct: iostat shows {shown_kb / 1024:.2f} MiB")
    assert shown_kb == pytest.approx(WRITTEN_MIB * 1024, rel=0.02)
    assert written_kb(sibling) < 1024
    (disk_folder / "file").unlink()
