"""One cluster for the whole level, and namespaces that a test makes and loses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.harness import Cluster, lifecycle
from tests.cluster.harness.layout import layout_of
from tests.cluster.installation import Images, install_chart
from tests.cluster.installation import images as built_images

BUILD_S = 1800


def pytest_collection_finish(session: pytest.Session) -> None:
    """The first test of the level may have to wait until Kubernetes is built."""
    here = Path(__file__).parent
    first = next((item for item in session.items if item.path.is_relative_to(here)), None)
    if first is not None:
        first.add_marker(pytest.mark.timeout(BUILD_S), append=False)


@pytest.fixture(scope="package")
def cluster(_nothing_left_at_the_end: None) -> Iterator[Cluster]:
    """The cluster. One that is up already, by `make cluster-up`, is used and stays up."""
    layout = layout_of()
    stays = lifecycle.init_pid(layout) is not None
    lifecycle.up(layout)
    yield Cluster(layout)
    if not stays:
        lifecycle.down(layout)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace for one test."""
    with cluster.namespace() as name:
        yield name


@pytest.fixture(scope="module")
def module_namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace that the tests of a module share."""
    with cluster.namespace() as name:
        yield name


@pytest.fixture(scope="package")
def images(_nothing_left_at_the_end: None) -> Iterator[Images]:
    """The image of this version and of a later one."""
    with built_images() as made:
        yield made


@pytest.fixture(scope="package")
def chart(cluster: Cluster, images: Images) -> Cluster:
    """The cluster with the chart installed as it comes."""
    for archive in (images.current, images.next):
        cluster.load_image(archive)
    install_chart(cluster)
    return cluster
