"""Proves: what is made is what OpenSSL accepts in a handshake, and its dates are what is promised.

The client of the handshakes is strict, as the API server's TLS is.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procscope.kubernetes.certificates import (
    BACKDATED,
    CertificateError,
    KeyPair,
    check_pair,
    dates,
    is_signed_by,
    issue,
    join_bundle,
    make_authority,
    names_of,
    service_names,
    split_bundle,
)
from tests.unit.kubernetes.handshakes import handshake, server_context

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
NAMES = service_names("procscope-webhook", "procscope")


def test_a_client_that_trusts_the_authority_trusts_the_certificate() -> None:
    authority = make_authority(NOW, 10 * DAY)
    serving = issue(authority, NAMES, NOW, DAY)
    for name in NAMES:
        assert handshake(server_context(serving), authority.certificate, name) == ""


def test_an_address_is_a_name_too() -> None:
    authority = make_authority(NOW, 10 * DAY)
    serving = issue(authority, ["webhook", "10.0.0.1", "fd00::1"], NOW, DAY)
    assert names_of(serving.certificate) == {"webhook", "10.0.0.1", "fd00::1"}
    assert handshake(server_context(serving), authority.certificate, "10.0.0.1") == ""
    assert handshake(server_context(serving), authority.certificate, "fd00::1") == ""


def test_another_name_is_not_trusted() -> None:
    authority = make_authority(NOW, 10 * DAY)
    serving = issue(authority, NAMES, NOW, DAY)
    reason = handshake(server_context(serving), authority.certificate, "other.procscope.svc")
    assert "Hostname mismatch" in reason


def test_another_authority_is_not_trusted() -> None:
    serving = issue(make_authority(NOW, 10 * DAY), NAMES, NOW, DAY)
    other = make_authority(NOW, 10 * DAY)
    assert "CERTIFICATE_VERIFY_FAILED" in handshake(
        server_context(serving), other.certificate, NAMES[0]
    )


def test_a_bundle_trusts_what_each_of_its_authorities_has_signed() -> None:
    old, new = make_authority(NOW, 10 * DAY), make_authority(NOW, 10 * DAY)
    bundle = join_bundle([new.certificate, old.certificate])
    for authority in (old, new):
        serving = issue(authority, NAMES, NOW, DAY)
        assert handshake(server_context(serving), bundle, NAMES[0]) == ""


def test_a_certificate_cannot_sign_another_one() -> None:
    authority = make_authority(NOW, 10 * DAY)
    serving = issue(authority, NAMES, NOW, DAY)
    forged = issue(serving, NAMES, NOW, DAY)
    chain = KeyPair(forged.certificate + serving.certificate, forged.key)
    assert "CERTIFICATE_VERIFY_FAILED" in handshake(
        server_context(chain), authority.certificate, NAMES[0]
    )


@settings(max_examples=20, deadline=None)
@given(seconds=st.integers(30, 100 * 365 * 86400))
def test_it_is_renewed_after_two_thirds_of_its_life(seconds: int) -> None:
    lifetime = timedelta(seconds=seconds)
    validity = dates(make_authority(NOW, lifetime).certificate)
    assert validity.not_before == NOW - BACKDATED
    assert validity.not_after == NOW + lifetime
    assert abs(validity.renewal - (NOW + lifetime * 2 / 3)) < timedelta(seconds=1)


def test_a_certificate_ends_with_its_authority_at_the_latest() -> None:
    authority = make_authority(NOW, DAY)
    serving = issue(authority, NAMES, NOW, 90 * DAY)
    assert dates(serving.certificate).not_after == NOW + DAY


def test_who_signed_is_told_apart() -> None:
    one, other = make_authority(NOW, DAY), make_authority(NOW, DAY)
    serving = issue(one, NAMES, NOW, DAY)
    assert is_signed_by(serving.certificate, one.certificate)
    assert not is_signed_by(serving.certificate, other.certificate)


def test_a_key_of_another_pair_is_noticed() -> None:
    one, other = make_authority(NOW, DAY), make_authority(NOW, DAY)
    check_pair(one)
    with pytest.raises(CertificateError, match="not that of the certificate"):
        check_pair(KeyPair(one.certificate, other.key))


def test_a_bundle_is_taken_apart_as_it_was_put_together() -> None:
    parts = tuple(make_authority(NOW, DAY).certificate for _ in range(3))
    assert split_bundle(join_bundle(parts)) == parts
    assert split_bundle(join_bundle([parts[0], parts[0]])) == parts[:1]
    assert split_bundle(b"\n") == ()


@given(garbage=st.binary(max_size=200))
def test_garbage_is_one_named_error(garbage: bytes) -> None:
    pair = KeyPair(garbage, garbage)
    for reader in (dates, names_of):
        with pytest.raises(CertificateError):
            reader(garbage)
    with pytest.raises(CertificateError):
        check_pair(pair)
    with pytest.raises(CertificateError):
        issue(pair, NAMES, NOW, DAY)


def test_a_long_name_is_still_a_certificate() -> None:
    authority = make_authority(NOW, DAY)
    names = service_names("w" * 63, "n" * 63)
    serving = issue(authority, names, NOW, DAY)
    assert handshake(server_context(serving), authority.certificate, names[0]) == ""


def test_the_oldest_protocol_is_tls_1_2() -> None:
    authority = make_authority(NOW, DAY)
    context = server_context(issue(authority, NAMES, NOW, DAY))
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
