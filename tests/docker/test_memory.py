"""`docker run -m`: the tools see the limit, what is used below it, and a change of it at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docker.conftest import Run
from tests.docker.containers import Container
from tests.docker.readings import MIB_KB, free, meminfo

LIMIT_KB = 256 * MIB_KB
SEEN_WITHIN_S = 1.0
GROWS_WITHIN_S = 2.9


def until(condition: Callable[[], bool], within_s: float) -> float:
    """Wait for a condition; return how long it took. Fails when the time is over."""
    start_s = time.monotonic()
    while not condition():
        assert time.monotonic() - start_s < within_s, f"not within {within_s} s"
        time.sleep(0.01)
    return time.monotonic() - start_s


def memory(container: Container) -> dict[str, int]:
    return free(container.run("free"))


def test_free_tells_the_limit(run: Run, views: tuple[str, ...]) -> None:
    container = run("-m", "256m", *views)
    fields = memory(container)
    assert fields["total"] == LIMIT_KB
    assert fields["used"] < 32 * MIB_KB
    host_swap_kb = meminfo(Path("/proc/meminfo").read_text())["SwapTotal"]
    # Docker allows as much swap as memory unless told otherwise.
    assert fields["swap"] == min(host_swap_kb, LIMIT_KB)


def test_touched_memory_is_used(run: Run, views: tuple[str, ...]) -> None:
    container = run("-m", "256m", *views)
    before = memory(container)
    # tail keeps what it may have to print: here all of it, for ever.
    container.start("sh", "-c", "{ head -c 100M /dev/zero; sleep infinity; } | tail -c 100M")
    until(lambda: memory(container)["used"] - before["used"] > 95 * MIB_KB, GROWS_WITHIN_S)
    moved_kb = memory(container)["used"] - before["used"]
    print(f"100 MiB touched: used moved by {moved_kb / MIB_KB:.1f} MiB")
    assert moved_kb == pytest.approx(100 * MIB_KB, rel=0.05)


def test_a_file_that_is_read_is_cache(run: Run, views: tuple[str, ...], disk_folder: Path) -> None:
    container = run("-m", "256m", "-v", f"{disk_folder}:/data", *views)
    container.run("dd", "if=/dev/zero", "of=/data/file", "bs=1M", "count=50", "oflag=direct")
    before = memory(container)
    container.run("dd", "if=/data/file", "of=/dev/null", "bs=1M")
    after = memory(container)
    moved_kb = after["buff/cache"] - before["buff/cache"]
    print(f"50 MiB read: buff/cache moved by {moved_kb / MIB_KB:.1f} MiB")
    assert moved_kb == pytest.approx(50 * MIB_KB, rel=0.02)
    # Cache can be dropped again: what is available stays.
    assert after["available"] == pytest.approx(before["available"], abs=5 * MIB_KB)
    (disk_folder / "file").unlink()


def test_what_is_available_never_exceeds_the_total(
    run: Run, views: tuple[str, ...], disk_folder: Path
) -> None:
    container = run("-m", "64m", "-v", f"{disk_folder}:/data", *views)
    container.start(
        "sh", "-c", "while :; do dd if=/dev/zero of=/data/full bs=1M count=100; done 2>/dev/null"
    )
    for _ in range(5):
        samples = container.shell("for i in $(seq 40); do cat /proc/meminfo; done")
        for text in samples.split("MemTotal:")[1:]:
            fields = meminfo(f"MemTotal:{text}")
            assert 0 < fields["MemTotal"] == 64 * MIB_KB
            assert 0 <= fields["MemFree"] <= fields["MemAvailable"] <= fields["MemTotal"]
            assert max(fields["Cached"], fields["Dirty"], fields["Active"]) <= fields["MemTotal"]


@pytest.mark.parametrize("limit_mib", [128, 512])
def test_docker_update_is_seen_within_a_second(
    run: Run, views: tuple[str, ...], limit_mib: int
) -> None:
    container = run("-m", "256m", "--memory-swap", "1g", *views)
    assert memory(container)["total"] == LIMIT_KB
    container.engine.docker("update", "--memory", f"{limit_mib}m", container.id)
    took_s = until(lambda: memory(container)["total"] == limit_mib * MIB_KB, SEEN_WITHIN_S)
    print(f"docker update --memory seen after {took_s:.2f} s")
