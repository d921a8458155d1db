"""`stat` and `uptime`: the container's own CPU time, adding up to its age, and never less."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import agents
from tests.integration.agents import Agent, agent
from tests.integration.cgroups import Group, container
from tests.integration.daemons import Daemon, daemon
from tests.integration.files import HZ, ONLINE, cpu_lines, meminfo, proc, stat
from tests.integration.waiting import eventually, fewer

USER, NICE, SYSTEM, IDLE, IOWAIT, IRQ, SOFTIRQ, STEAL = range(8)
NS_PER_TICK = 1_000_000_000 // HZ


@pytest.fixture
def group() -> Iterator[Group]:
    with container() as one:
        yield one


@pytest.fixture
def reader(group: Group) -> Iterator[Agent]:
    with agent(group) as one:
        yield one


def use_cpu(seconds: float) -> None:
    """Use so much CPU time, by this process's own clock."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        for _ in range(5000):
            pass


def use_cpu_on(cpu: int, seconds: float) -> None:
    os.sched_setaffinity(0, {cpu})
    use_cpu(seconds)


def use_cpu_in_kernel(seconds: float) -> None:
    end = time.process_time() + seconds
    zero = os.open("/dev/zero", os.O_RDONLY)
    while time.process_time() < end:
        os.read(zero, 1 << 20)
    os.close(zero)


def start_ticks(pid: int) -> int:
    text = Path(f"/proc/{pid}/stat").read_text()
    return int(text.rpartition(")")[2].split()[19])


def boottime_ticks() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // NS_PER_TICK


def used_ticks(columns: list[int]) -> int:
    return columns[USER] + columns[NICE] + columns[SYSTEM]


def test_each_cpus_columns_add_up_to_the_containers_age(
    mount: Path, group: Group, reader: Agent
) -> None:
    for cpus in (None, 1, 0.5):
        group.set_cpus(cpus)
        reader.call(use_cpu, 0.1)
        before = boottime_ticks() - start_ticks(reader.pid)
        lines = stat(mount, reader)
        after = boottime_ticks() - start_ticks(reader.pid)
        total = lines.pop("cpu")
        ages = {sum(columns) for columns in lines.values()}
        assert len(ages) == 1
        assert before - 1 <= ages.pop() <= after + 1
        assert total == [sum(column) for column in zip(*lines.values(), strict=True)]


def test_a_busy_loop_moves_the_columns_by_what_the_kernel_has_counted(
    mount: Path, group: Group, reader: Agent
) -> None:
    """User and system apart too, and a sibling's do not move."""
    with container() as sibling, agent(sibling) as neighbour:
        start, neighbour_start = stat(mount, reader), stat(mount, neighbour)
        start_ns = group.cpu_usage_ns()
        reader.call(use_cpu, 0.5)
        middle = stat(mount, reader)["cpu"]
        reader.call(use_cpu_in_kernel, 0.5)
        counted_before = group.cpu_usage_ns()
        end = stat(mount, reader)
        counted_after = group.cpu_usage_ns()
        ticks = used_ticks(end["cpu"]) - used_ticks(start["cpu"])
        rounding = 3 * len(ONLINE)
        assert (counted_before - start_ns) // NS_PER_TICK - rounding <= ticks
        assert ticks <= (counted_after - start_ns) // NS_PER_TICK + rounding
        # The kernel splits user from system by ticks; most of each must be where it belongs.
        assert middle[USER] - start["cpu"][USER] > middle[SYSTEM] - start["cpu"][SYSTEM]
        assert end["cpu"][SYSTEM] - middle[SYSTEM] > end["cpu"][USER] - middle[USER]
        idle = used_ticks(stat(mount, neighbour)["cpu"]) - used_ticks(neighbour_start["cpu"])
        assert idle <= rounding


def test_time_is_on_the_cpu_that_it_was_used_on_where_the_kernel_says_so(
    mount: Path, group: Group, reader: Agent
) -> None:
    """v2 does not: there it is spread evenly, and the sum is right."""
    cpu = f"cpu{ONLINE[-1]}"
    before, counted_before = stat(mount, reader), group.cpu_usage_ns()
    reader.call(use_cpu_on, ONLINE[-1], 0.3)
    counted_ns = group.cpu_usage_ns() - counted_before
    after = stat(mount, reader)
    moved = {name: used_ticks(after[name]) - used_ticks(before[name]) for name in after}
    assert moved["cpu"] >= counted_ns // NS_PER_TICK - 3 * len(ONLINE) > 0
    if (group.directory("cpuacct") / "cpuacct.usage_all").exists():
        assert moved[cpu] >= 0.9 * moved["cpu"]
    else:
        others = [ticks for name, ticks in moved.items() if name != "cpu"]
        assert max(others) - min(others) <= 4


def test_half_a_cpus_quota_shows_as_steal(mount: Path, group: Group, reader: Agent) -> None:
    """The rest of the one visible CPU was withheld, and `top` says so."""
    group.set_cpus(0.5)
    before, throttled_before = stat(mount, reader), group.throttled_ns()
    while group.throttled_ns() - throttled_before < 300_000_000:
        reader.call(use_cpu, 0.1)
    throttled_low = group.throttled_ns()
    after, throttled_high = stat(mount, reader), group.throttled_ns()
    moved = [now - then for now, then in zip(after["cpu"], before["cpu"], strict=True)]
    assert moved[STEAL] <= (throttled_high - throttled_before) // NS_PER_TICK + 1
    # What is over is carried to the next read: 0.2 s at most.
    assert moved[STEAL] >= (throttled_low - throttled_before) // NS_PER_TICK - 21
    assert moved[STEAL] > 0
    assert moved[IOWAIT] == moved[IRQ] == moved[SOFTIRQ] == 0


def assert_not_less(now: dict[str, list[int]], seen: dict[str, list[int]]) -> None:
    """No column of a CPU's line has gone back since it was last seen; then remember it."""
    for name, columns in now.items():
        if name == "cpu":
            continue
        before = seen.get(name, [0] * len(columns))
        assert all(new >= old for new, old in zip(columns, before, strict=True)), (
            name,
            before,
            columns,
        )
        seen[name] = columns


def test_no_column_ever_goes_back(group: Group) -> None:
    """Over killed workers, CPUs that go and come back, bursts above the quota, a restart."""
    with daemon("--workers", "2") as served, agent(group) as worker, agent(group) as reader:
        seen: dict[str, list[int]] = {}

        def look(times: int = 5) -> None:
            for _ in range(times):
                assert_not_less(stat(served.mountpoint, reader), seen)

        worker.send(use_cpu_until_told, group.path)
        for cpus in (None, 1, 0.3, len(ONLINE), 0.5, None):
            group.set_cpus(cpus)
            look()
            served.kill_worker()
            look()
            group.set_cpuset(str(ONLINE[-1]))
            look()
            group.set_cpuset(f"{ONLINE[0]}-{ONLINE[-1]}")
            look()
        served.stop()
        served.start()
        look()
        served.kill()
        served.start()
        look()
        assert sum(used_ticks(columns) for columns in seen.values()) > 0


def use_cpu_until_told(_: str) -> None:
    """Two threads that never end by themselves."""
    for _thread in range(2):
        threading.Thread(target=use_cpu, args=(1e9,), daemon=True).start()


def test_all_columns_are_kept_when_the_daemon_starts_anew(group: Group, reader: Agent) -> None:
    with daemon() as served:
        reader.call(use_cpu, 0.3)
        before = stat(served.mountpoint, reader)
        served.stop()
        served.start()
        after = stat(served.mountpoint, reader)
        assert used_ticks(after["cpu"]) >= used_ticks(before["cpu"]) > 0
        assert all(new >= old for new, old in zip(after["cpu"], before["cpu"], strict=True))


def test_uptime_counts_from_the_first_process(mount: Path, group: Group) -> None:
    with agent(group) as first:
        eventually(lambda: boottime_ticks() - start_ticks(first.pid) > 0.2 * HZ)
        with agent(group) as second:
            before = boottime_ticks() - start_ticks(first.pid)
            age_s = float(proc(mount, "uptime", second).split()[0])
            after = boottime_ticks() - start_ticks(first.pid)
            assert before / HZ - 0.02 <= age_s <= after / HZ + 0.02
        first_text = proc(mount, "uptime", first)
        assert float(first_text.split()[0]) >= age_s


def test_the_idle_time_of_uptime_is_that_of_stat(mount: Path, reader: Agent) -> None:
    reader.call(use_cpu, 0.1)
    before = stat(mount, reader)["cpu"][IDLE] / HZ
    idle_s = float(proc(mount, "uptime", reader).split()[1])
    after = stat(mount, reader)["cpu"][IDLE] / HZ
    assert before <= idle_s <= after


def test_the_age_is_that_of_the_container_after_its_first_process_has_gone(
    mount: Path, group: Group
) -> None:
    with agent(group) as lasting:
        with agent(group) as first:
            age_s = float(proc(mount, "uptime", first).split()[0])
        assert float(proc(mount, "uptime", lasting).split()[0]) >= age_s


def field(text: str, name: str) -> int:
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


def test_running_tasks_are_the_containers_and_the_boot_time_is_the_hosts(
    mount: Path, group: Group, reader: Agent
) -> None:
    def running() -> int:
        return field(proc(mount, "stat", reader), "procs_running")

    with agent(group) as one, agent(group) as other:
        for busy in (one, other):
            busy.send(use_cpu, 1e9)
        eventually(lambda: running() >= 2)
    eventually(lambda: running() == 1)
    text = proc(mount, "stat", reader)
    assert field(text, "btime") == field(Path("/proc/stat").read_text(), "btime")
    assert field(text, "procs_blocked") == 0
    assert len(cpu_lines(text)) == len(ONLINE) + 1


def test_two_readers_at_once_never_see_time_go_back(served: Daemon, group: Group) -> None:
    """Both workers share one ledger."""
    with agent(group) as one, agent(group) as other:
        for reader in (one, other):
            reader.send(agents.read_many, str(served.mountpoint / "proc/stat"), fewer(300, 50))
        for reader in (one, other):
            seen: dict[str, list[int]] = {}
            texts = reader.receive()
            assert isinstance(texts, list)
            for text in texts:
                assert_not_less(cpu_lines(text.decode()), seen)
        assert meminfo(served.mountpoint, one)
