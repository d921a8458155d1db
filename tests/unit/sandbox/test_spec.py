"""The request of `procscope run`: each limit is checked against the host beforehand."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.cgroup.model import Missing
from procscope.errors import ExitCode, ProcscopeError
from procscope.ids import CpuId
from procscope.sandbox.spec import Host, RunOptions, build_spec, generated_name, read_host
from procscope.values import replace

HOST = Host(memory_bytes=8 * 1024**3, cpus=tuple(CpuId(cpu) for cpu in (0, 1, 2, 5)))
OPTIONS = RunOptions(command=("true",))
MIB = 1024**2


def test_an_option_that_was_left_out_limits_nothing() -> None:
    spec = build_spec(OPTIONS, HOST)
    assert spec.memory_bytes is None
    assert spec.memory_swap_bytes is None
    assert spec.cpu_quota_usec is None
    assert spec.cpuset is None


def test_limits_are_kept_in_base_units() -> None:
    options = replace(OPTIONS, memory="256m", memory_swap="1g", cpus="1.5", cpuset_cpus="1-2,5")
    spec = build_spec(options, HOST)
    assert spec.memory_bytes == 256 * MIB
    assert spec.memory_swap_bytes == 1024 * MIB
    assert spec.cpu_quota_usec == 150_000
    assert spec.cpuset == (1, 2, 5)


def test_swap_is_as_much_as_memory_where_nothing_is_said() -> None:
    """As in Docker: --memory-swap counts both, and is twice --memory by default."""
    assert build_spec(replace(OPTIONS, memory="256m"), HOST).memory_swap_bytes == 512 * MIB


def test_unlimited_swap_is_not_a_number() -> None:
    spec = build_spec(replace(OPTIONS, memory="256m", memory_swap="-1"), HOST)
    assert spec.memory_swap_bytes is Missing.UNLIMITED


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"memory": "lots"}, "--memory: not a size"),
        ({"memory": "0"}, "zero is no limit"),
        ({"memory": "0.2b"}, "zero is no limit"),
        ({"memory": "6291455"}, "the minimum is 6m"),
        ({"memory": "9g"}, "it has 8 GiB"),
        ({"memory": "9999999p"}, "too large"),
        ({"memory": "-1"}, "not a size"),
        ({"memory_swap": "1g"}, "without --memory"),
        ({"memory_swap": "-1"}, "without --memory"),
        ({"memory": "1g", "memory_swap": "512m"}, "less than --memory"),
        ({"memory": "1g", "memory_swap": "-2"}, "--memory-swap: not a size"),
        ({"memory": "1g", "memory_swap": "0"}, "zero is no limit"),
        ({"cpus": "0"}, r"use 0\.01 to 4\.00"),
        ({"cpus": "0.009"}, r"use 0\.01 to 4\.00"),
        ({"cpus": "4.01"}, r"use 0\.01 to 4\.00"),
        ({"cpus": "many"}, "not a number of CPUs"),
        ({"cpuset_cpus": "4"}, "CPU 4 is not online: available: 0-2,5"),
        ({"cpuset_cpus": "0-65535"}, "available: 0-2,5"),
        ({"cpuset_cpus": ""}, "not a list of CPUs"),
        ({"cpuset_cpus": "0-"}, "not a list of CPUs"),
        ({"name": ""}, "not a name"),
        ({"name": ".."}, "not a name"),
        ({"name": "a/b"}, "not a name"),
        ({"name": "a\n"}, "not a name"),
        ({"name": "x" * 129}, "not a name"),
        ({"hostname": "-a"}, "not a host name"),
        ({"hostname": "a" * 65}, "not a host name"),
        ({"workdir": "tmp"}, "not absolute"),
        ({"workdir": "/\0"}, "NUL"),
        ({"env": ("=x",)}, "no name"),
        ({"env": ("A=\0",)}, "NUL"),
        ({"command": ()}, "no command"),
        ({"command": ("",)}, "no command"),
        ({"command": ("a", "\0")}, "NUL"),
    ],
)
def test_what_cannot_be_is_refused_by_its_option(changes: dict[str, str], message: str) -> None:
    with pytest.raises(ProcscopeError, match=message):
        build_spec(replace(OPTIONS, **changes), HOST)


def test_the_bounds_themselves_are_allowed() -> None:
    options = replace(OPTIONS, memory="8g", memory_swap="8g", cpus="4", cpuset_cpus="0-2,5")
    assert build_spec(options, HOST).cpu_quota_usec == 400_000
    assert build_spec(replace(OPTIONS, memory="6m", cpus="0.01"), HOST).cpu_quota_usec == 1_000


_TEXTS = st.none() | st.text(max_size=20) | st.from_regex(r"[0-9.,bkmg-]{1,6}", fullmatch=True)


@given(_TEXTS, _TEXTS, _TEXTS, _TEXTS, _TEXTS)
def test_any_options_are_a_spec_within_the_host_or_one_error_line(
    memory: str | None,
    swap: str | None,
    cpus: str | None,
    cpuset: str | None,
    name: str | None,
) -> None:
    options = replace(
        OPTIONS, memory=memory, memory_swap=swap, cpus=cpus, cpuset_cpus=cpuset, name=name
    )
    try:
        spec = build_spec(options, HOST)
    except ProcscopeError as error:
        refusal = str(error)
    else:
        assert spec.memory_bytes is None or 6 * MIB <= spec.memory_bytes <= HOST.memory_bytes
        assert spec.cpu_quota_usec is None or 1_000 <= spec.cpu_quota_usec <= 400_000
        assert spec.cpuset is None or set(spec.cpuset) <= set(HOST.cpus)
        return
    assert len(refusal.splitlines()) == 1


def test_a_bare_variable_is_inherited_and_the_last_value_wins() -> None:
    spec = build_spec(replace(OPTIONS, env=("HOME", "A=1", "A=2=3", "B=")), HOST)
    assert dict(spec.env) == {"A": "2=3", "B": ""}


def test_generated_names_differ_and_are_names() -> None:
    first, second = generated_name(), generated_name()
    assert first != second
    assert build_spec(replace(OPTIONS, name=first), HOST).name == first


def test_this_host_has_memory_and_cpus() -> None:
    host = read_host()
    assert host.memory_bytes > 16 * MIB
    assert host.cpus


@pytest.mark.parametrize("meminfo", ["", "MemTotal:", "MemTotal: x kB", "\0"])
def test_a_host_that_cannot_be_read_is_an_error_line(tmp_path: Path, meminfo: str) -> None:
    (tmp_path / "meminfo").write_text(meminfo)
    with pytest.raises(ProcscopeError, match="cannot tell the memory") as caught:
        read_host(str(tmp_path), "/sys")
    assert caught.value.exit_code == ExitCode.RUN_FAILED
