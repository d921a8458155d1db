"""Closes what the tests of this folder have opened."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.cgroup.trees import BUDGETS


@pytest.fixture(autouse=True)
def _files_are_closed() -> Iterator[None]:
    yield
    for budget in BUDGETS:
        while budget.give_up_one():
            pass
    BUDGETS.clear()
