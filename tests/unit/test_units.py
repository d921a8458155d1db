"""Sizes and CPU counts: Docker's grammar, and one clear error for all the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.errors import ProcscopeError
from procscope.units import MAX_SIZE_BYTES, format_size, parse_cpus, parse_size, shorten

_POWERS = {"": 0, "b": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        # From the tests of docker/go-units (RAMInBytes): what Docker takes means the same here.
        ("32", 32),
        ("32b", 32),
        ("32B", 32),
        ("32k", 32 * 1024),
        ("32K", 32 * 1024),
        ("32kb", 32 * 1024),
        ("32Kb", 32 * 1024),
        ("32KiB", 32 * 1024),
        ("32 kb", 32 * 1024),
        ("32.5kB", int(32.5 * 1024)),
        ("32.5 kB", int(32.5 * 1024)),
        ("256m", 256 * 1024**2),
        ("1.5g", 3 * 1024**3 // 2),
        (".5g", 1024**3 // 2),
        ("1.", 1),
        ("0.3", 0),
        ("1t", 1024**4),
        ("1Pb", 1024**5),
    ],
)
def test_a_size_means_what_it_means_to_docker(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "b",
        "m",
        "hello",
        "-32",
        "+32",
        "32bb",
        "32ib",
        "32kbb",
        "32 b b",
        "32  mb",
        " 32",
        "32m ",
        "1e3",
        "0x10",
        "1_000",
        "32m\n",
        "٣٢m",
        "..5",
        "1.2.3",
        "1" * 5000,
    ],
)
def test_what_is_no_size_is_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(ProcscopeError, match="as in 256m"):
        parse_size(text)


def test_a_size_beyond_what_the_kernel_counts_is_refused() -> None:
    assert parse_size(str(MAX_SIZE_BYTES)) == MAX_SIZE_BYTES
    for text in ("8192p", str(MAX_SIZE_BYTES + 1), "9" * 60 + "p"):
        with pytest.raises(ProcscopeError, match="too large"):
            parse_size(text)


@given(number=st.integers(0, 4096), unit=st.sampled_from(sorted(_POWERS)))
def test_a_unit_is_a_power_of_1024(number: int, unit: str) -> None:
    assert parse_size(f"{number}{unit}") == number * 1024 ** _POWERS[unit]


@given(st.text())
def test_any_text_is_a_size_or_one_error_line(text: str) -> None:
    """No input ends in anything but a number the kernel can hold, or the one kind of error."""
    try:
        size_bytes = parse_size(text)
    except ProcscopeError as error:
        refusal = str(error)
    else:
        assert 0 <= size_bytes <= MAX_SIZE_BYTES
        return
    assert "\n" not in refusal


@pytest.mark.parametrize(
    ("text", "quota_usec"),
    [
        ("1", 100000),
        ("1.5", 150000),
        ("0.01", 1000),
        (".5", 50000),
        ("2.", 200000),
        ("0", 0),
        ("1.000000001", 100000),
        ("0.000009", 0),
        ("64", 6400000),
    ],
)
def test_a_cpu_count_is_a_quota_of_100_ms(text: str, quota_usec: int) -> None:
    assert parse_cpus(text) == quota_usec


@pytest.mark.parametrize("text", ["", "-1", "1e1", "3/2", "a", "1,5", " 1", "1.5m", "9" * 5000])
def test_what_is_no_cpu_count_is_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(ProcscopeError, match=r"as in 2 or 1\.5"):
        parse_cpus(text)


def test_a_cpu_count_finer_than_dockers_nano_cpus_is_refused() -> None:
    with pytest.raises(ProcscopeError, match="too precise"):
        parse_cpus("1.0000000001")


@given(st.integers(0, 10**6))
def test_a_cpu_count_in_hundredths_is_exact(hundredths: int) -> None:
    """No binary fraction gets in: 0.29 CPUs are 29,000 µs, not 28,999."""
    assert parse_cpus(f"{hundredths // 100}.{hundredths % 100:02}") == hundredths * 1000


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (256 << 20, "256 MiB"),
        (MAX_SIZE_BYTES, "8192 PiB"),
    ],
)
def test_a_size_in_a_message(size_bytes: int, text: str) -> None:
    assert format_size(size_bytes) == text


@given(st.text(), st.integers(1, 50))
def test_a_shortened_text_is_never_longer(text: str, length: int) -> None:
    short = shorten(text, length)
    assert short == text if len(text) <= length else len(short) == length
