"""Proves: a sample reads as it was written, and anything else as none."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from procscope.cgroup.model import TaskCounts
from procscope.observe.loadblock import LoadBlock
from procscope.views.loadavg import Load

_NUMBER = st.integers(0, 2**64 - 1)


@given(st.builds(Load, _NUMBER, _NUMBER, _NUMBER), _NUMBER, _NUMBER, _NUMBER)
def test_round_trip(load: Load, running: int, newest: int, at_ns: int) -> None:
    tasks = TaskCounts(running=running, blocked=1, total=2)
    block = LoadBlock(load, tasks, newest, at_ns)
    assert LoadBlock.from_bytes(block.to_bytes()) == block


@given(st.binary() | st.binary(min_size=65, max_size=65).filter(lambda text: text[0] != 1))
def test_another_version_or_garbage_is_none(text: bytes) -> None:
    if len(text) != 65 or text[0] != 1:
        assert LoadBlock.from_bytes(text) is None
    assert LoadBlock.from_bytes(None) is None
