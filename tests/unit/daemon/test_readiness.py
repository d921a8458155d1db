"""Proves: the service manager hears what sd_notify(3) would send, and its absence is no error."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from procscope.daemon.readiness import notify


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    name = f"procscope-test-{os.getpid()}"
    address = f"\0{name}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", address.replace("\0", "@"))
        yield listener


def test_the_state_arrives(manager: socket.socket) -> None:
    assert notify("READY=1\nSTATUS=Serving /var/lib/procscope")
    assert manager.recv(999) == b"READY=1\nSTATUS=Serving /var/lib/procscope"


def test_a_name_that_is_no_utf8_is_told_all_the_same(manager: socket.socket) -> None:
    assert notify("READY=1\nSTATUS=Serving /mnt/\udcff")
    assert manager.recv(999).startswith(b"READY=1\nSTATUS=Serving /mnt/")


@pytest.mark.parametrize("address", [None, ""])
def test_without_a_manager_nothing_happens(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, address: str | None
) -> None:
    if address is None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify("READY=1")
    assert caplog.records == []


@pytest.mark.parametrize("address", ["/nothing/there", "@nothing-there", "/" + "x" * 200, "x"])
def test_a_manager_that_cannot_be_reached_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, address: str
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify("READY=1")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "None" not in record.getMessage()
