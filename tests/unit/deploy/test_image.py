"""What the image's builder works out before any engine is asked."""

from __future__ import annotations

import re

import pytest

from tests.unit.deploy.documents import ROOT, script

TARGET = {
    "implementation_name": "cpython",
    "implementation_version": "3.13.5",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_release": "",
    "platform_system": "Linux",
    "platform_version": "",
    "python_full_version": "3.13.5",
    "python_version": "3.13",
    "sys_platform": "linux",
}


def test_a_base_takes_wheels_of_its_own_c_library_and_older_ones() -> None:
    tags = script("image").platforms("glibc 2.28", "aarch64")
    assert tags[0] == "manylinux_2_28_aarch64"
    assert "manylinux2014_aarch64" in tags
    assert not [tag for tag in tags if re.search(r"_2_(29|3\d|4\d)_", tag)]


def test_a_base_without_glibc_takes_wheels_for_musl() -> None:
    tags = script("image").platforms("", "x86_64")
    assert tags
    assert all(re.fullmatch(r"musllinux_1_\d_x86_64", tag) for tag in tags)


@pytest.mark.parametrize("python", ["3.11.2", "3.13.5"])
def test_every_locked_package_has_its_hashes_and_no_condition_left(python: str) -> None:
    version = python.rpartition(".")[0]
    target = TARGET | {"python_full_version": python, "python_version": version}
    lines = script("image").locked_requirements(target).splitlines()
    names = {line.partition("==")[0] for line in lines}
    assert {"cryptography", "httptools", "lightkube", "prometheus-client", "uvicorn"} <= names
    for line in lines:
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+( --hash=sha256:[0-9a-f]{64})+", line)


def test_the_installer_is_pinned_by_its_hash() -> None:
    text = (ROOT / "deploy" / "image" / "installer.txt").read_text(encoding="utf-8")
    assert re.fullmatch(r"pip==[\d.]+ --hash=sha256:[0-9a-f]{64}\n", text)
