"""Proves: what one process writes on the board, another one reads."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from procscope.daemon.board import Board, Phase


@pytest.fixture
def board() -> Iterator[Board]:
    one = Board.create()
    yield one
    one.close()


@pytest.fixture
def other(board: Board) -> Iterator[Board]:
    one = Board.adopt(os.dup(board.fd))
    yield one
    one.close()


def test_at_first_nothing_has_happened(board: Board) -> None:
    assert board.beat_age_s() == float("inf")
    assert board.phase is Phase.STARTING
    assert (board.healed_files, board.given_back_files, board.fallbacks) == (0, 0, 0)


@pytest.mark.parametrize("phase", Phase)
def test_the_phase(board: Board, other: Board, phase: Phase) -> None:
    board.phase = phase
    assert other.phase is phase


def test_a_beat(board: Board, other: Board) -> None:
    board.beat()
    assert 0 <= other.beat_age_s() < 60


def test_counts_add_up(board: Board, other: Board) -> None:
    board.count_healed(3)
    board.count_healed(4)
    board.count_given_back(2)
    for worker in (0, 1, 1, 63, 64):
        board.count_fallback(worker)
    board.count_outsider()
    assert (other.healed_files, other.given_back_files, other.fallbacks) == (7, 2, 5)
    assert other.outsiders == 1
