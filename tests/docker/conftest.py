"""One engine and two daemons for the whole session, and containers that a test makes and loses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from tests.docker.containers import Container
from tests.docker.engine import Engine, running_engine
from tests.docker.images import static_root, tools_root
from tests.docker.serving import article_options, procscope, served

TOOLS = "tools"
STATIC = "static"
LXCFS = "/var/lib/lxcfs"
PROCSCOPE = "/var/lib/procscope"


class Run(Protocol):
    """`docker run -d` of the tools image, with options; the container lives as long as the test."""

    def __call__(
        self, *options: str, command: tuple[str, ...] = ..., image: str = ...
    ) -> Container: ...


@pytest.fixture(scope="session")
def engine(_nothing_left_at_the_end: None) -> Iterator[Engine]:
    """A dockerd of our own, with the images."""
    with running_engine() as engine:
        engine.import_image(TOOLS, tools_root())
        engine.import_image(STATIC, static_root())
        yield engine


@pytest.fixture(scope="session")
def article(_nothing_left_at_the_end: None) -> Iterator[tuple[str, ...]]:
    """The walk-through's options, with the daemon as the drop-in that they ask for."""
    with served(LXCFS):
        yield article_options(LXCFS)


@pytest.fixture(scope="session")
def all_views(_nothing_left_at_the_end: None) -> Iterator[tuple[str, ...]]:
    """What `procscope docker-args` prints, with the daemon at the default mountpoint."""
    with served(PROCSCOPE):
        printed = procscope("docker-args")
        assert printed.returncode == 0, printed.stderr
        yield tuple(printed.stdout.split())


@pytest.fixture(params=["article", "docker-args"])
def views(
    request: pytest.FixtureRequest, article: tuple[str, ...], all_views: tuple[str, ...]
) -> tuple[str, ...]:
    """Both ways to mount the files, one after the other."""
    return article if request.param == "article" else all_views


@pytest.fixture
def run(engine: Engine) -> Iterator[Run]:
    """Make containers for one test."""
    with containers(engine) as make:
        yield make


@pytest.fixture(scope="module")
def module_run(engine: Engine) -> Iterator[Run]:
    """Make containers that the tests of a module share."""
    with containers(engine) as make:
        yield make


@contextmanager
def containers(engine: Engine) -> Iterator[Run]:
    """Make containers, and remove them in the end."""
    made: list[str] = []

    def make(
        *options: str, command: tuple[str, ...] = ("sleep", "infinity"), image: str = TOOLS
    ) -> Container:
        id_ = engine.docker("run", "-d", *options, image, *command).strip()
        made.append(id_)
        return Container(engine, id_)

    try:
        yield make
    finally:
        if made:
            engine.docker("rm", "-f", *made)


@pytest.fixture
def disk_folder(engine: Engine) -> Path:
    """A folder on a block device of this machine, for a volume."""
    folder = engine.root / "volume"
    folder.mkdir(exist_ok=True)
    device = folder.stat().st_dev
    if os.major(device) == 0:
        pytest.skip(f"{folder} is not on a block device")
    return folder
