"""What a forked child tells the launcher arrives as it was sent, or not at all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.errors import ExitCode, ProcscopeError
from procscope.sandbox.report import ReportPipe, open_report_pipe


@pytest.fixture
def pipe() -> Iterator[ReportPipe]:
    pipe = open_report_pipe()
    yield pipe
    pipe.close()


_LINE = st.text(st.characters(exclude_characters="\n", codec="utf-8"), max_size=500)


@given(_LINE, _LINE, st.sampled_from(ExitCode))
def test_an_error_arrives_whole(message: str, hint: str, code: ExitCode) -> None:
    pipe = open_report_pipe()
    try:
        pipe.send(ProcscopeError(message, hint=hint, exit_code=code))
        received = pipe.receive()
    finally:
        pipe.close()
    assert received is not None
    assert (received.message, received.hint, received.exit_code) == (message, hint, code)


def test_a_line_end_in_a_name_does_not_move_the_hint(pipe: ReportPipe) -> None:
    pipe.send(ProcscopeError("a\nb: not found", hint="look"))
    received = pipe.receive()
    assert str(received) == "a b: not found: look"


def test_an_endless_message_is_cut_and_never_waits(pipe: ReportPipe) -> None:
    pipe.send(ProcscopeError("\U0001f642" * 10**6, hint="\U0001f642" * 10**6))
    received = pipe.receive()
    assert received is not None
    assert received.message.startswith("\U0001f642")
    assert received.hint.endswith("…")


def test_a_name_that_is_no_utf8_is_told_all_the_same(pipe: ReportPipe) -> None:
    pipe.send(ProcscopeError("a\udcff: not found"))
    assert "not found" in str(pipe.receive())


def test_silence_is_success_and_reading_does_not_wait(pipe: ReportPipe) -> None:
    assert pipe.receive() is None
