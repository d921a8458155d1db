"""The views that only cut or check: `slabinfo` and `pressure/*`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.views import pressure, slabinfo
from tests.unit.views.recorded import hosts_with, read


@pytest.mark.parametrize("host", hosts_with("slabinfo"))
def test_slabinfo_is_the_hosts_two_header_lines(host: str) -> None:
    content = read(host, "slabinfo")
    assert content.count(b"\n") > 2
    view = slabinfo.render(content)
    assert content.startswith(view)
    assert view.count(b"\n") == 2


@pytest.mark.parametrize("host", hosts_with("slabinfo"))
def test_the_fixed_header_is_what_kernels_print(host: str) -> None:
    assert slabinfo.render(b"") == slabinfo.render(read(host, "slabinfo"))


@given(garbage=st.binary(max_size=200))
def test_slabinfo_never_shows_a_line_that_is_no_header(garbage: bytes) -> None:
    assert slabinfo.render(garbage) == slabinfo.render(b"")
    assert slabinfo.render(b"slabinfo - version: 2.1\n" + garbage).count(b"\n") == 2


@pytest.mark.parametrize("kind", ["cpu", "io", "memory"])
@pytest.mark.parametrize("host", hosts_with("pressure/cpu"))
def test_pressure_passes_as_it_is(host: str, kind: str) -> None:
    content = read(host, f"pressure/{kind}")
    assert pressure.render(content) == content


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"some avg10=0.00\n\n", b"somewhat avg10=0\n", b"full\nerror\n"]
)
def test_what_is_no_pressure_file_is_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError, match="pressure"):
        pressure.render(content)
