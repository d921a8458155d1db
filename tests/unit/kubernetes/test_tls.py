"""Proves: a certificate is exchanged between two handshakes, and a broken one changes nothing."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from procscope.errors import ProcscopeError
from procscope.kubernetes.certificates import CertificateError, KeyPair, issue, make_authority
from procscope.kubernetes.metrics import Metrics
from procscope.kubernetes.tls import CertificateFiles, ServingCertificate
from tests.unit.kubernetes.handshakes import handshake

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
NAME = "webhook.procscope.svc"


class Issued:
    """An authority and what it has signed."""

    def __init__(self) -> None:
        self.authority = make_authority(NOW, DAY)
        self.pair = issue(self.authority, [NAME], NOW, DAY)

    def is_served_by(self, serving: ServingCertificate) -> bool:
        return handshake(serving.context, self.authority.certificate, NAME) == ""


def write(folder: Path, pair: KeyPair) -> tuple[str, str]:
    """Write both files as new ones, as whoever replaces them does."""
    paths = (folder / "tls.crt", folder / "tls.key")
    for path, content in zip(paths, (pair.certificate, pair.key), strict=True):
        new = path.with_suffix(".new")
        new.write_bytes(content)
        new.rename(path)
    return str(paths[0]), str(paths[1])


def test_before_the_first_certificate_no_handshake_succeeds() -> None:
    assert handshake(ServingCertificate(Metrics()).context, Issued().authority.certificate, NAME)


def test_what_begins_after_an_exchange_has_the_new_certificate() -> None:
    serving, one, other = ServingCertificate(Metrics()), Issued(), Issued()
    serving.use(one.pair)
    assert one.is_served_by(serving)
    serving.use(other.pair)
    assert other.is_served_by(serving)
    assert not one.is_served_by(serving)


def test_a_broken_certificate_changes_nothing() -> None:
    serving, one, other = ServingCertificate(Metrics()), Issued(), Issued()
    serving.use(one.pair)
    for broken in (
        KeyPair(other.pair.certificate, one.pair.key),
        KeyPair(other.pair.certificate, b""),
        KeyPair(b"", other.pair.key),
        KeyPair(other.pair.certificate, other.pair.key[:100]),
    ):
        with pytest.raises(CertificateError):
            serving.use(broken)
        assert serving.pair == one.pair
        assert one.is_served_by(serving)


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it() -> None:
    issued = Issued()
    key = serialization.load_pem_private_key(issued.pair.key, password=None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    with pytest.raises(CertificateError):
        ServingCertificate(Metrics()).use(KeyPair(issued.pair.certificate, locked))


def test_no_descriptor_is_left_open() -> None:
    serving = ServingCertificate(Metrics())
    before = len(os.listdir("/proc/self/fd"))
    serving.use(Issued().pair)
    assert len(os.listdir("/proc/self/fd")) == before


def test_metrics_tell_of_the_certificate() -> None:
    metrics, issued = Metrics(), Issued()
    ServingCertificate(metrics).use(issued.pair)
    text = metrics.render(ready=True).decode()
    assert "procscope_webhook_certificate_reloads_total 1.0" in text
    line = next(
        one for one in text.splitlines() if one.startswith("procscope_webhook_certificate_expiry")
    )
    assert float(line.split()[1]) == pytest.approx((NOW + DAY).timestamp(), abs=1)


def test_files_are_read_again_when_they_change(tmp_path: Path) -> None:
    metrics, one, other = Metrics(), Issued(), Issued()
    serving = ServingCertificate(metrics)
    files = CertificateFiles(*write(tmp_path, one.pair), serving, metrics)
    files.load_first()
    assert one.is_served_by(serving)
    write(tmp_path, other.pair)
    files.load()
    assert other.is_served_by(serving)


def test_files_that_are_half_replaced_are_read_once_they_fit(tmp_path: Path) -> None:
    metrics, one, other = Metrics(), Issued(), Issued()
    serving = ServingCertificate(metrics)
    files = CertificateFiles(*write(tmp_path, one.pair), serving, metrics)
    files.load_first()
    write(tmp_path, KeyPair(other.pair.certificate, one.pair.key))
    with pytest.raises(CertificateError):
        files.load()
    assert one.is_served_by(serving)
    write(tmp_path, other.pair)
    files.load()
    assert other.is_served_by(serving)


def test_the_link_of_a_secret_volume_is_followed(tmp_path: Path) -> None:
    metrics, one, other = Metrics(), Issued(), Issued()
    for name, issued in (("one", one), ("other", other)):
        (tmp_path / name).mkdir()
        write(tmp_path / name, issued.pair)
    (tmp_path / "..data").symlink_to("one")
    serving = ServingCertificate(metrics)
    data = tmp_path / "..data"
    files = CertificateFiles(str(data / "tls.crt"), str(data / "tls.key"), serving, metrics)
    files.load_first()
    (tmp_path / "next").symlink_to("other")
    (tmp_path / "next").rename(data)
    files.load()
    assert other.is_served_by(serving)


def test_a_file_that_is_missing_at_the_start_is_named(tmp_path: Path) -> None:
    metrics = Metrics()
    files = CertificateFiles(
        str(tmp_path / "a.crt"), str(tmp_path / "a.key"), ServingCertificate(metrics), metrics
    )
    with pytest.raises(ProcscopeError, match=r"a\.crt: No such file"):
        files.load_first()


def test_a_file_that_is_no_certificate_at_the_start_is_named(tmp_path: Path) -> None:
    metrics = Metrics()
    paths = write(tmp_path, KeyPair(b"nothing", b"nothing"))
    with pytest.raises(ProcscopeError, match=r"tls\.crt.*not a certificate"):
        CertificateFiles(*paths, ServingCertificate(metrics), metrics).load_first()
