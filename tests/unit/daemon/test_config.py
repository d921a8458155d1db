"""Proves: what is served and where state is kept follow from the options alone."""

from __future__ import annotations

import os
import re

from procscope.daemon.config import CPU_FOLDER, DEFAULT_FILES, ServeConfig, default_workers
from procscope.observe.registry import VIEWS


def test_every_file_is_served_unless_told() -> None:
    config = ServeConfig()
    assert config.views == VIEWS
    assert config.with_cpu_folder


def test_only_what_was_chosen_is_served() -> None:
    config = ServeConfig(files=("proc/meminfo", "proc/pressure/cpu"))
    assert set(config.views) == {"meminfo", "pressure/cpu"}
    assert not config.with_cpu_folder
    assert ServeConfig(files=(CPU_FOLDER,)).with_cpu_folder
    assert not ServeConfig(files=(CPU_FOLDER,)).views


def test_each_mountpoint_has_its_own_state() -> None:
    folders = {
        ServeConfig(mountpoint=path, run_directory="/run/x").state_directory
        for path in ("/a", "/b", "/a/b", "/\udcff")
    }
    assert len(folders) == 4
    assert all(re.fullmatch(r"/run/x/[0-9a-f]+", folder) for folder in folders)
    # A restart finds the state again.
    assert ServeConfig(mountpoint="/a").state_directory == ServeConfig("/a").state_directory


def test_files_are_named_as_in_the_mount() -> None:
    assert "proc/pressure/memory" in DEFAULT_FILES
    assert len(set(DEFAULT_FILES)) == len(VIEWS) + 1


def test_workers_by_the_size_of_the_host() -> None:
    assert 2 <= default_workers() <= 4
    assert os.cpu_count() is None or default_workers() <= max(2, os.cpu_count() or 1)
