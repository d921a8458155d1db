"""The `diskstats` view: what the container did, in the kernel's columns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.cgroup.model import DeviceNumber, IoCounters
from procscope.views import diskstats
from tests.unit.views.recorded import hosts_with, read

RECORDED = [host for host in hosts_with("diskstats") if read(host, "diskstats")]
WITHOUT_DISKS = [host for host in hosts_with("diskstats") if not read(host, "diskstats")]
USED = IoCounters(
    read_bytes=1 << 20, write_bytes=1 << 16, discard_bytes=4096, reads=9, writes=5, discards=2
)
NUMBERS = {14: "7 1 2 3 4 5 6 7 8 9 10", 18: "7 1 2 3 4 5 6 7 8 9 10 1 1 1 1"}
NUMBERS[20] = NUMBERS[18] + " 1 1"
KNOWN = {14: "9 0 2048 0 5 0 128 0 0 0 0", 18: "9 0 2048 0 5 0 128 0 0 0 0 2 0 8 0"}
KNOWN[20] = KNOWN[18] + " 0 0"


@pytest.mark.parametrize("columns", [14, 18, 20])
def test_as_many_columns_as_the_host(columns: int) -> None:
    line = f" 259       0 nvme0n1 {NUMBERS[columns]}\n".encode()
    assert len(line.split()) == columns
    view = diskstats.render(line, {(259, 0): USED})
    assert view == f" 259       0 nvme0n1 {KNOWN[columns]}\n".encode()


def test_columns_that_are_not_known_yet_are_0() -> None:
    line = f"   8       0 sda {NUMBERS[20]} 6 6\n".encode()
    assert diskstats.render(line, {(8, 0): USED}).split()[-4:] == [b"0"] * 4


@pytest.mark.parametrize("host", RECORDED)
def test_a_used_device_has_the_hosts_name_and_form(host: str) -> None:
    content = read(host, "diskstats")
    line = content.splitlines(keepends=True)[-1]
    major, minor, *_ = line.split()
    view = diskstats.render(content, {(int(major), int(minor)): USED, (4095, 1): USED})
    assert len(view.splitlines()) == 1
    assert view.startswith(line[: line.index(line.split()[2])] + line.split()[2] + b" 9 0 2048 ")
    assert len(view.split()) == len(line.split())


def test_devices_that_the_container_did_not_use_are_left_out() -> None:
    content = f"   8       0 sda {NUMBERS[20]}\n   8      16 sdb {NUMBERS[20]}\n".encode()
    view = diskstats.render(content, {(8, 0): IoCounters(), (8, 16): IoCounters(writes=1)})
    assert view == b"   8      16 sdb 0 0 0 0 1 0 0 0 0 0 0 0 0 0 0 0 0\n"
    assert diskstats.render(content, {}) == b""


@pytest.mark.parametrize("host", WITHOUT_DISKS)
def test_a_machine_without_disks_has_an_empty_file(host: str) -> None:
    assert diskstats.render(read(host, "diskstats"), {(8, 0): USED}) == b""


def test_sectors_are_512_bytes_rounded_down() -> None:
    content = f"   8       0 sda {NUMBERS[14]}\n".encode()
    view = diskstats.render(content, {(8, 0): IoCounters(read_bytes=1023, write_bytes=511)})
    assert view == b"   8       0 sda 0 0 1 0 0 0 0 0 0 0 0\n"


@pytest.mark.parametrize(
    "line", [b"\n", b"8 0 sda", b"x 0 sda 1", b"8 -1 sda 1", b"8 0", b"8.0 0 sda 1"]
)
def test_a_line_without_numbers_and_a_name_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError, match="not a"):
        diskstats.render(line, {})


@given(
    garbage=st.binary(max_size=60),
    io=st.dictionaries(st.tuples(st.integers(0, 300), st.integers(0, 300)), st.just(USED)),
)
def test_garbage_is_a_value_error_or_whole_lines(
    garbage: bytes, io: dict[DeviceNumber, IoCounters]
) -> None:
    try:
        view = diskstats.render(read("6.18-x86_64", "diskstats") + garbage, io)
    except ValueError:
        return
    assert not view or view.endswith(b"\n")
