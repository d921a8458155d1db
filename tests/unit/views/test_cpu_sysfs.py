"""`/sys/devices/system/cpu`: which folders are hidden, which files are cut, what stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.linux.cpulist import parse_cpulist
from procscope.views import cpu_sysfs
from tests.unit.views.recorded import DATA, cpus, read

HOST = "6.1-x86_64"
SYS = DATA / HOST / "sys"
FILES = sorted(str(path.relative_to(SYS)) for path in SYS.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("path", "hidden"),
    [
        ("cpu0", True),
        ("cpu1", False),
        ("cpu1/topology", False),
        ("cpu10", True),
        ("cpu10/topology/core_id", True),
        ("cpu3/cache", False),
        ("cpufreq", False),
        ("cpuidle", False),
        ("cpu", False),
        ("cpuX", False),
        ("cpu1x", False),
        ("online", False),
        ("", False),
    ],
)
def test_only_folders_of_cpus_that_are_not_visible_are_hidden(path: str, hidden: bool) -> None:
    assert cpu_sysfs.is_hidden(path, cpus(1, 3)) is hidden


@pytest.mark.parametrize(
    ("related", "hidden"),
    [(b"0 2\n", True), (b"0 1\n", False), (b"3\n", False), (None, False), (b"?", False)],
)
def test_a_frequency_policy_is_hidden_when_none_of_its_cpus_is_visible(
    related: bytes | None, hidden: bool
) -> None:
    for path in ("cpufreq/policy0", "cpufreq/policy0/scaling_cur_freq"):
        assert cpu_sysfs.is_hidden(path, cpus(1, 3), related) is hidden
        assert cpu_sysfs.related_cpus_path(path) == "cpufreq/policy0/related_cpus"
    assert cpu_sysfs.related_cpus_path("cpufreq/boost") is None
    assert cpu_sysfs.related_cpus_path("cpu0/cpufreq") is None


@pytest.mark.parametrize(
    ("path", "host", "shown"),
    [
        ("online", b"0-7\n", b"1,3\n"),
        ("present", b"0-7\n", b"1,3\n"),
        ("possible", b"0-127\n", b"1,3\n"),
        ("offline", b"8-127\n", b"\n"),
        ("enabled", b"0-2\n", b"1\n"),
        ("isolated", b"2-3\n", b"3\n"),
        ("isolated", b"\n", b"\n"),
        ("nohz_full", b"1-7\n", b"1,3\n"),
        ("nohz_full", b"(null)\n", b"(null)\n"),
        ("cpu1/topology/thread_siblings_list", b"1,5\n", b"1\n"),
        ("cpu1/topology/thread_siblings", b"22\n", b"02\n"),
        ("cpu1/topology/core_cpus", b"00000000,00000022\n", b"00000000,00000002\n"),
        ("cpu1/topology/package_cpus_list", b"0-7\n", b"1,3\n"),
        ("cpu1/topology/package_cpus", b"ff\n", b"0a\n"),
        ("cpu1/topology/die_cpus", b"ff\n", b"0a\n"),
        ("cpu1/topology/cluster_cpus_list", b"0-3\n", b"1,3\n"),
        ("cpu1/topology/book_siblings_list", b"0-7\n", b"1,3\n"),
        ("cpu1/topology/drawer_siblings", b"ff\n", b"0a\n"),
        ("cpu1/topology/core_id", b"5\n", b"5\n"),
        ("cpu1/cache/index3/shared_cpu_list", b"0-7\n", b"1,3\n"),
        ("cpu1/cache/index3/shared_cpu_map", b"ff\n", b"0a\n"),
        ("cpu1/cache/index3/size", b"22528K\n", b"22528K\n"),
        ("cpufreq/policy1/affected_cpus", b"1 2 3\n", b"1 3\n"),
        ("cpufreq/policy1/related_cpus", b"0 1\n", b"1\n"),
        ("cpufreq/policy1/freqdomain_cpus", b"0 2\n", b"\n"),
        ("cpu1/cpufreq/related_cpus", b"0 1\n", b"1\n"),
        ("cpufreq/policy1/scaling_governor", b"performance\n", b"performance\n"),
        ("cpu1/online", b"1\n", b"1\n"),
        ("kernel_max", b"8191\n", b"8191\n"),
        ("vulnerabilities/meltdown", b"Not affected\n", b"Not affected\n"),
        ("cpu1/topology/online", b"0-7\n", b"0-7\n"),
    ],
)
def test_each_rule(path: str, host: bytes, shown: bytes) -> None:
    assert cpu_sysfs.render(path, host, cpus(1, 3)) == shown


@pytest.mark.parametrize("path", FILES)
def test_a_container_that_sees_all_gets_the_recorded_bytes(path: str) -> None:
    assert cpu_sysfs.render(path, read(HOST, f"sys/{path}"), cpus(0, 1, 2, 3)) == read(
        HOST, f"sys/{path}"
    )


@given(
    path=st.sampled_from([path for path in FILES if path.endswith("_list")]),
    shown=st.sets(st.integers(0, 5)).map(lambda ids: cpus(*sorted(ids))),
)
def test_recorded_lists_and_their_masks_agree(path: str, shown: tuple[int, ...]) -> None:
    mask_path = path.removesuffix("_list")
    if mask_path not in FILES:
        mask_path += "_map"
    listed = cpu_sysfs.render(path, read(HOST, f"sys/{path}"), cpus(*shown))
    mask = cpu_sysfs.render(mask_path, read(HOST, f"sys/{mask_path}"), cpus(*shown))
    ids = parse_cpulist(listed.decode())
    assert set(ids) <= set(shown)
    assert int(mask.replace(b",", b""), 16) == sum(1 << cpu for cpu in ids)


CUT_PATHS = st.sampled_from(
    [
        *("online", "offline", "isolated", "nohz_full", "cpu1/topology/core_cpus"),
        *("cpu1/topology/core_cpus_list", "cpu1/cache/index0/shared_cpu_map"),
        "cpufreq/policy0/related_cpus",
    ]
)


@given(path=CUT_PATHS, garbage=st.binary(max_size=40))
def test_garbage_is_a_value_error_or_one_line(path: str, garbage: bytes) -> None:
    try:
        view = cpu_sysfs.render(path, garbage, cpus(1, 3))
    except ValueError:
        return
    assert view.endswith(b"\n") or view == garbage
