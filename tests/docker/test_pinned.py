"""`docker run $(procscope docker-args)`: what follows the limits is each container's own."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.docker.conftest import PROCSCOPE, STATIC, TOOLS, Run
from tests.docker.containers import Container
from tests.docker.engine import Engine
from tests.docker.readings import cpu_list, cpuinfo_cpus, meminfo
from tests.docker.serving import procscope
from tests.integration.waiting import fewer

CPUS = "/sys/devices/system/cpu"
CPUINFO, MEMINFO, ONLINE = "/proc/cpuinfo", "/proc/meminfo", f"{CPUS}/online"
DROP_CACHES = Path("/proc/sys/vm/drop_caches")
READS = 40
PINNED_ROOT = re.compile(r"/[0-9a-f]{5}-[0-9a-f]{32}/(.*)")
WHILE_READ = 'while IFS= read -r line; do echo "$line"; done <{}'


def roots(container: Container) -> dict[str, str]:
    """What is mounted where in a container, of which path in its filesystem."""
    lines = [line.split() for line in container.read("/proc/self/mountinfo").splitlines()]
    return {words[4]: words[3] for words in lines}


def options(*words: str) -> tuple[str, ...]:
    """What `docker-args` prints."""
    return tuple(procscope("docker-args", *words).stdout.split())


@pytest.mark.usefixtures("all_views")
def test_only_what_follows_the_limits_comes_from_the_pinned_tree(run: Run) -> None:
    expected = {"limits": {CPUINFO, CPUS}, "none": set[str](), "all": {CPUINFO, CPUS, MEMINFO}}
    for which, pinned in expected.items():
        found = roots(run("-m", "96m", *options("--pinned", which)))
        for path in (CPUINFO, CPUS, MEMINFO):
            own = PINNED_ROOT.fullmatch(found[path])
            assert (own is not None) == (path in pinned)
            assert f"/{own[1] if own else found[path][1:]}" == path
    assert options() == options("--pinned", "limits")


@pytest.mark.timeout(300)
def test_fifty_started_at_once_see_their_own_cpus(
    engine: Engine, all_views: tuple[str, ...]
) -> None:
    """While the same paths are walked from the host."""
    host_cpus = cpu_list(Path(ONLINE).read_text())
    cpusets = [host_cpus[:1], host_cpus[-1:], host_cpus]
    script = f"cat {CPUINFO}; echo ====; cat {ONLINE}; echo ====; cat {MEMINFO}"

    def seen(index: int) -> tuple[list[int], list[int], int]:
        limits = ("-m", f"{64 + index}m", "--cpuset-cpus", listed(cpusets[index % 3]))
        words = ("run", "--rm", *limits, *all_views, TOOLS, "sh", "-c", script)
        texts = engine.docker(*words, timeout_s=240).split("====\n")
        return cpuinfo_cpus(texts[0]), cpu_list(texts[1]), meminfo(texts[2])["MemTotal"]

    count = fewer(50, 6)
    with ThreadPoolExecutor(count) as pool:
        found = [pool.submit(seen, index) for index in range(count)]
        while not all(one.done() for one in found):
            for file in ("proc/cpuinfo", "sys/devices/system/cpu/online"):
                assert Path(PROCSCOPE, "self", file).read_text()
    for index, one in enumerate(found):
        cpus = cpusets[index % 3]
        assert one.result() == (cpus, cpus, (64 + index) * 1024)


def test_the_first_read_tells_of_a_quota(engine: Engine, all_views: tuple[str, ...]) -> None:
    """Which runc sets, on cgroup v1, when it has made the mounts."""
    script = f"cat {CPUINFO}; echo ====; cat {ONLINE}"
    for _ in range(fewer(10, 3)):
        words = ("run", "--rm", "--cpus", "1", *all_views, TOOLS, "sh", "-c", script)
        cpuinfo, online = engine.docker(*words).split("====\n")
        assert (cpuinfo_cpus(cpuinfo), cpu_list(online)) == ([0], [0])


def listed(cpus: list[int]) -> str:
    """For `--cpuset-cpus`."""
    return ",".join(str(cpu) for cpu in cpus)


@pytest.mark.parametrize("path", [CPUINFO, ONLINE])
def test_shells_that_read_byte_by_byte_read_all_of_it(
    engine: Engine, run: Run, all_views: tuple[str, ...], path: str
) -> None:
    limits = ("--cpuset-cpus", "0")
    container = run(*limits, *all_views)
    whole = container.read(path)
    loop = WHILE_READ.format(path)
    assert whole.endswith("\n")
    assert container.shell(loop) == whole
    assert container.run("busybox", "sh", "-c", loop) == whole
    shown = engine.docker("run", "--rm", *limits, *all_views, STATIC, "/busybox", "sh", "-c", loop)
    # Only the MHz, if it is told, is of another moment.
    assert len(shown.splitlines()) == len(whole.splitlines())


def test_memory_pressure_takes_nothing_away(run: Run, all_views: tuple[str, ...]) -> None:
    """The page cache is dropped again and again, while two containers read."""
    one, other = (run("--cpuset-cpus", "0", "--cpus", "0.9", *all_views) for _ in range(2))
    script = (
        f"i=0; while [ $i -lt {READS} ]; do i=$((i+1)); "
        f"grep -c ^processor {CPUINFO}; cat {ONLINE}; done"
    )
    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(container.shell, script) for container in (one, other)]
        while not all(reading.done() for reading in found):
            DROP_CACHES.write_text("3\n")
    assert [reading.result() for reading in found] == ["1\n0\n" * READS] * 2
