"""The ways people run containers: users, read-only roots, many at once, an image of one file."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.docker.conftest import STATIC, TOOLS, Run
from tests.docker.engine import Engine
from tests.docker.readings import cpuinfo_cpus, free, meminfo

AT_ONCE = 8


def test_as_another_user_on_a_read_only_root(engine: Engine, views: tuple[str, ...]) -> None:
    options = ("--rm", "--user", "1000:1000", "--read-only", "--cap-drop", "ALL", "-m", "96m")
    assert free(engine.docker("run", *options, *views, TOOLS, "free"))["total"] == 96 * 1024


def test_the_files_cannot_be_written(run: Run, article: tuple[str, ...]) -> None:
    """The options say `rw`; what is mounted has nothing to write."""
    container = run(*article)
    for name in ("meminfo", "uptime", "cpuinfo"):
        said = container.shell(f"(echo 1 >/proc/{name}) 2>&1 || echo refused")
        assert "refused" in said
        assert "Read-only file system" in said
    assert meminfo(container.read("/proc/meminfo"))["MemTotal"] > 0


def test_many_at_once(engine: Engine, views: tuple[str, ...]) -> None:
    def total_kb(limit_mib: int) -> int:
        return free(engine.docker("run", "--rm", "-m", f"{limit_mib}m", *views, TOOLS, "free"))[
            "total"
        ]

    limits_mib = [64 + 8 * index for index in range(2 * AT_ONCE)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        assert list(pool.map(total_kb, limits_mib)) == [limit * 1024 for limit in limits_mib]


def test_an_image_of_one_static_binary(engine: Engine, views: tuple[str, ...]) -> None:
    options = ("--rm", "-m", "80m", "--cpus", "1")
    shown = engine.docker(
        "run", *options, *views, STATIC, "/busybox", "head", "-1", "/proc/meminfo"
    )
    assert meminfo(shown) == {"MemTotal": 80 * 1024}
    top = engine.docker("run", *options, *views, STATIC, "/busybox", "top", "-b", "-n", "1")
    used, free_kb = (int(word.split("K")[0]) for word in top.split()[1:4:2])
    assert used + free_kb == 80 * 1024


@pytest.mark.parametrize("name", ["meminfo", "cpuinfo", "stat", "uptime"])
def test_sendfile_gives_a_whole_file(engine: Engine, views: tuple[str, ...], name: str) -> None:
    """busybox cat, which is Alpine's, copies by sendfile(2)."""
    options = ("--rm", "-m", "80m", "--cpuset-cpus", "0")
    shown = engine.docker("run", *options, *views, STATIC, "/busybox", "cat", f"/proc/{name}")
    assert shown.endswith("\n")
    if name == "meminfo":
        assert meminfo(shown)["MemTotal"] == 80 * 1024
    if name == "cpuinfo":
        assert cpuinfo_cpus(shown) == [0]
