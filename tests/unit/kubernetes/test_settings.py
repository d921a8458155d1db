"""Settings that could never work are told at once, and a namespace is read with tolerance."""

from __future__ import annotations

import pytest

from procscope.errors import ProcscopeError
from procscope.inject.docker import DEFAULT_FILES
from procscope.kubernetes.settings import Settings


def test_the_defaults_are_those_of_the_docker_options() -> None:
    assert Settings().files == DEFAULT_FILES
    assert Settings().inject_annotations == (
        "procscope.io/inject",
        "initializer.kubernetes.io/lxcfs",
    )


@pytest.mark.parametrize(
    "mountpoint", ["", "/", "relative/path", "/var//lib", "/var/lib/", "/var/../lib", "/./lib"]
)
def test_a_mountpoint_that_no_host_path_can_name(mountpoint: str) -> None:
    with pytest.raises(ProcscopeError, match="mountpoint"):
        Settings(mountpoint=mountpoint)


def test_a_file_that_the_runtime_would_refuse() -> None:
    with pytest.raises(ProcscopeError, match="proc/vmstat"):
        Settings(files=("proc/vmstat",))


@pytest.mark.parametrize("name", ["", "-a", "a/b/c", "Example.com/x", "a" * 64, "example.com/"])
def test_a_name_that_no_annotation_can_have(name: str) -> None:
    with pytest.raises(ProcscopeError, match="annotation"):
        Settings(annotations=(name,))


@pytest.mark.parametrize("name", ["lxcfs", "example.com/lxcfs", "a.b-c.d/E_f.g", "x/" + "a" * 63])
def test_names_that_annotations_have(name: str) -> None:
    assert Settings(annotations=(name,)).inject_annotations == ("procscope.io/inject", name)


def test_a_level_that_pod_security_has_not() -> None:
    with pytest.raises(ProcscopeError, match="baselin"):
        Settings(default_pod_security_level="baselin")
