"""The `cpuinfo` view: the visible CPUs' paragraphs of every architecture's layout."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.ids import CpuId
from procscope.views import cpuinfo
from tests.unit.views.recorded import cpus, hosts_with, read

RECORDED = hosts_with("cpuinfo")


def listed(content: bytes) -> tuple[CpuId, ...]:
    numbers = re.findall(rb"^processor[ \t]*:? *(\d+)", content, re.MULTILINE)
    return cpus(*(int(number) for number in numbers))


def numbers(content: bytes, name: str) -> list[int]:
    found = re.findall(rf"^{name}[ \t]*: (\d+)$", content.decode(), re.MULTILINE)
    return [int(number) for number in found]


@pytest.mark.parametrize("host", RECORDED)
def test_a_container_that_sees_all_gets_identical_bytes(host: str) -> None:
    content = read(host, "cpuinfo")
    assert len(listed(content)) >= 2
    assert cpuinfo.render(content, listed(content)) == content
    assert cpuinfo.render(content, (*listed(content), CpuId(9999))) == content


@pytest.mark.parametrize("host", RECORDED)
def test_the_visible_cpus_keep_their_ids_and_their_text(host: str) -> None:
    content = read(host, "cpuinfo")
    shown = (listed(content)[-1],)
    view = cpuinfo.render(content, shown)
    assert listed(view) == shown
    counts = re.compile(rb"^(siblings|cpu cores|# processors).*", re.MULTILINE)
    theirs = [line for line in content.split(b"\n") if not counts.match(line)]
    ours = [line for line in view.split(b"\n") if not counts.match(line)]
    remaining = iter(theirs)
    assert all(line in remaining for line in ours), "a line is new or out of order"
    assert (len(content) - len(content.rstrip(b"\n"))) == (len(view) - len(view.rstrip(b"\n")))


@given(data=st.data(), host=st.sampled_from(RECORDED))
def test_exactly_the_visible_cpus_are_listed(data: st.DataObject, host: str) -> None:
    content = read(host, "cpuinfo")
    shown = data.draw(st.sets(st.sampled_from(listed(content)), min_size=1))
    view = cpuinfo.render(content, shown)
    assert listed(view) == tuple(sorted(shown))
    assert numbers(view, "cpu number") in ([], sorted(shown))
    assert numbers(view, "# processors") in ([], [len(shown)])
    siblings, cores = numbers(view, "siblings"), numbers(view, "cpu cores")
    assert all(1 <= c <= s <= len(shown) for s, c in zip(siblings, cores, strict=True))


@pytest.mark.parametrize(
    ("shown", "siblings", "cores"),
    [
        (cpus(0, 1), [2, 2], [2, 2]),
        (cpus(0, 4), [2, 2], [1, 1]),
        (cpus(0, 2), [1, 1], [1, 1]),
        (cpus(0, 1, 4, 6), [3, 3, 3, 1], [2, 2, 2, 1]),
    ],
)
def test_x86_counts_per_package(
    shown: tuple[CpuId, ...], siblings: list[int], cores: list[int]
) -> None:
    """CPUs n and n+4 are threads of one core; 0, 1, 4, 5 are one package."""
    view = cpuinfo.render(read("composed-x86_64", "cpuinfo"), shown)
    assert numbers(view, "siblings") == siblings
    assert numbers(view, "cpu cores") == cores


def test_s390x_header_and_paragraphs() -> None:
    view = cpuinfo.render(read("composed-s390x", "cpuinfo"), cpus(1, 2, 5))
    assert numbers(view, "# processors") == [3]
    assert re.findall(rb"^processor (\d+): version", view, re.MULTILINE) == [b"1", b"2", b"5"]
    assert numbers(view, "cpu number") == [1, 2, 5]
    assert numbers(view, "siblings") == [2, 2, 1], "the same package number in another book"
    assert numbers(view, "cpu cores") == [2, 2, 1]
    assert b"machine = 8561\n\ncpu number" in view
    assert view.startswith(b"vendor_id       : IBM/S390\n")


def test_ppc64_keeps_what_describes_the_machine() -> None:
    content = read("composed-ppc64le", "cpuinfo")
    view = cpuinfo.render(content, cpus(2))
    assert (
        view
        == content[content.index(b"processor\t: 2") : content.index(b"processor\t: 3")]
        + (content[content.index(b"timebase") :])
    )


@pytest.mark.parametrize("content", [b"", b"\n\n", b"processor\t: x\n", b"processors\t: 0\n"])
def test_no_visible_cpu_in_the_file_is_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError, match="visible"):
        cpuinfo.render(content, cpus(0))
    with pytest.raises(ValueError, match="visible"):
        cpuinfo.render(read("composed-riscv64", "cpuinfo"), cpus(99))


@given(garbage=st.binary(max_size=60), place=st.integers(0, 3000))
def test_garbage_is_a_value_error_or_not_empty(garbage: bytes, place: int) -> None:
    content = read("composed-s390x", "cpuinfo")
    try:
        assert cpuinfo.render(content[:place] + garbage + content[place:], cpus(1, 4))
        assert cpuinfo.render(garbage, cpus(1, 4))
    except ValueError:
        return


def test_a_line_without_a_colon_is_no_field() -> None:
    """What no kernel prints is left as it is, and cut again it stays the same."""
    host = (
        b"processor\t: 0\nsiblings\t: 4\nsiblings\nflags\t: x\n\nprocessor\t: 1\nsiblings\t: 4\n\n"
    )
    cut = cpuinfo.render(host, (CpuId(0),))
    assert b"\nsiblings\t: 1\nsiblings\nflags" in cut
