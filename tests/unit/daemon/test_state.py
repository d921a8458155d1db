"""Proves: state survives a restart of the daemon and not one of the host."""

from __future__ import annotations

from pathlib import Path

import pytest

from procscope.daemon.config import ServeConfig
from procscope.daemon.state import prepare_state
from procscope.errors import ProcscopeError
from procscope.observe.records import RecordStore


@pytest.fixture
def config(tmp_path: Path) -> ServeConfig:
    boot(tmp_path, "first boot")
    return ServeConfig(mountpoint="/mnt", run_directory=f"{tmp_path}/run", proc=f"{tmp_path}/proc")


def boot(root: Path, boot_id: str) -> None:
    path = root / "proc/sys/kernel/random/boot_id"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{boot_id}\n")


def test_records_survive_the_daemon(config: ServeConfig) -> None:
    prepare_state(config)
    RecordStore(config.records_directory).open("one").close()
    prepare_state(config)
    assert RecordStore(config.records_directory).names() == ("one",)


def test_records_do_not_survive_the_host(config: ServeConfig, tmp_path: Path) -> None:
    """A cgroup's inode number, by which a record is named, may be another cgroup's by then."""
    prepare_state(config)
    RecordStore(config.records_directory).open("one").close()
    boot(tmp_path, "second boot")
    prepare_state(config)
    assert RecordStore(config.records_directory).names() == ()


def test_a_directory_that_cannot_be_made_is_one_line(config: ServeConfig, tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(ProcscopeError, match="cannot keep state in") as caught:
        prepare_state(config)
    assert "--run-directory" in caught.value.hint


def test_where_nothing_changes_nothing_is_written(config: ServeConfig) -> None:
    """A disk that is full or read-only does not keep the daemon from its next start."""
    prepare_state(config)
    before = everything_below(Path(config.run_directory))
    prepare_state(config)
    assert everything_below(Path(config.run_directory)) == before


def everything_below(folder: Path) -> list[tuple[Path, int, int]]:
    found = [(path, path.stat()) for path in (folder, *folder.rglob("*"))]
    return sorted((path, status.st_ino, status.st_ctime_ns) for path, status in found)


def test_the_mode_of_an_earlier_directory_is_mended(config: ServeConfig) -> None:
    prepare_state(config)
    Path(config.records_directory).chmod(0o755)
    prepare_state(config)
    assert Path(config.records_directory).stat().st_mode & 0o777 == 0o700
