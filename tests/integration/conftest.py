"""One daemon for the tests that do nothing to it, and a reader on the host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.agents import Agent, agent
from tests.integration.daemons import Daemon, daemon


@pytest.fixture(scope="module")
def served() -> Iterator[Daemon]:
    """A daemon with two workers."""
    with daemon("--workers", "2") as one:
        yield one


@pytest.fixture(scope="module")
def mount(served: Daemon) -> Path:
    """Where its files are."""
    return served.mountpoint


@pytest.fixture
def host() -> Iterator[Agent]:
    """A process in no container."""
    with agent() as one:
        yield one
