"""Proves: what fuzzing has found holds, for its corpus and for inputs a few edits away from it."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.seeds import seeds
from tests.fuzz.targets import CORPUS, TARGETS, corpus
from tests.integration.agents import fork

Isolated: TypeAlias = Callable[[Callable[[], None]], None]

MOST_BYTES = 1_500_000
EXAMPLES = 200
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), st.binary(max_size=12)), max_size=4)
"""Where, as a part of the length; how many bytes go; what comes in their place."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """What a daemon would log of bad input is not looked at here."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def isolated(tmp_path: Path) -> Isolated:
    """Runs a function in a process of its own: targets keep files open from one input to the next.

    Fails where the function does.
    """

    def run(function: Callable[[], None]) -> None:
        pid = fork()
        if pid == 0:
            code = 1
            try:
                tempfile.tempdir = str(tmp_path)
                function()
                code = 0
            except BaseException:  # noqa: BLE001 - the process ends here whatever it was
                traceback.print_exc(file=sys.__stderr__)
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0

    return run


def edited(data: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    for place, removed, added in edits:
        at = round(place * len(data))
        data = data[:at] + added + data[at + removed :]
    return data


def test_every_folder_of_the_corpus_has_its_target() -> None:
    assert {path.name for path in CORPUS.iterdir()} == TARGETS.keys() == seeds().keys()


def test_the_corpus_stays_small() -> None:
    sizes = [path.stat().st_size for name in TARGETS for path in corpus(name)]
    assert sum(sizes) <= MOST_BYTES
    assert max(sizes) <= 1 << 14


@pytest.mark.parametrize("name", TARGETS)
def test_every_input_of_the_corpus_keeps_the_promises(name: str, isolated: Isolated) -> None:
    inputs = [path.read_bytes() for path in corpus(name)]
    assert inputs

    def check() -> None:
        for data in (*inputs, *seeds()[name]):
            TARGETS[name](data)

    isolated(check)


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_a_few_edits_away_keep_the_promises(name: str, isolated: Isolated) -> None:
    inputs = [path.read_bytes() for path in corpus(name)]

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.sampled_from(inputs), EDITS)
    def check(data: bytes, edits: list[tuple[float, int, bytes]]) -> None:
        TARGETS[name](edited(data, edits))

    isolated(check)
