"""The image for Kubernetes, built here on a base made of Debian's packages. No registry is used."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from procscope import __version__
from tests.docker.engine import Engine

ROOT = Path(__file__).parents[2]
BUILD_S = 280
TAG = f"procscope:{__version__}"


@dataclass(frozen=True)
class Image:
    """What was built: the archive, and in whose engine it is."""

    engine: Engine
    archive: Path

    def run(self, *words: str, entrypoint: str = "procscope") -> tuple[int, str]:
        """Run something in the image as the webhook's pod does; exit code and output."""
        options = ("--rm", "--network=none", "--read-only", "--cap-drop=ALL")
        done = self.engine.call("run", *options, "--entrypoint", entrypoint, TAG, *words)
        return done.returncode, done.stdout.decode()

    def identity(self) -> str:
        """What the image's content is known by."""
        return self.engine.docker("image", "inspect", "--format", "{{.Id}}", TAG)


def build(engine: Engine, archive: Path) -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "image", "--base=local", "--engine=docker", "--output", archive],
        env=engine.environment,
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def image(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    archive = tmp_path_factory.mktemp("image") / "image.tar"
    build(engine, archive)
    yield Image(engine, archive)
    engine.docker("image", "rm", "--force", TAG)


def test_it_is_this_release(image: Image) -> None:
    assert image.run("--version") == (0, f"procscope {__version__}\n")


def test_its_user_is_not_root_and_its_files_are_not_the_users(image: Image) -> None:
    code, user = image.run("-u", entrypoint="id")
    assert code == 0
    assert int(user) >= 1000
    code, _ = image.run("-w", "/opt/procscope/bin/procscope", entrypoint="test")
    assert code == 1


@pytest.mark.parametrize("command", ["agent", "keeper", "webhook"])
def test_it_has_every_command_of_the_pods(image: Image, command: str) -> None:
    code, text = image.run(command, "--help")
    assert code == 0
    assert text.startswith(f"usage: procscope {command}")


def test_it_has_what_the_webhook_needs(image: Image) -> None:
    modules = "procscope.kubernetes.assembly, cryptography.x509, httptools, uvicorn"
    assert image.run("-c", f"import {modules}", entrypoint="python3") == (0, "")


def test_it_has_nothing_to_install_or_to_compile_with(image: Image) -> None:
    code, _ = image.run("-c", "import pip", entrypoint="python3")
    assert code == 1
    programs = "for name in cc gcc make apt-get pip wget curl; do command -v $name; done; true"
    assert image.run("-c", programs, entrypoint="sh") == (0, "")


def test_the_archive_names_the_image_for_containerd(image: Image) -> None:
    with tarfile.open(image.archive) as archive:
        listed = archive.extractfile("manifest.json")
        assert listed is not None
        (entry,) = json.load(listed)
    assert entry["RepoTags"] == [TAG]


def test_the_same_sources_give_the_same_image(image: Image, tmp_path: Path) -> None:
    before = image.identity()
    build(image.engine, tmp_path / "again.tar")
    assert image.identity() == before
