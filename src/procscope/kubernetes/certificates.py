"""Makes certificate authorities and serving certificates, and reads their dates.

Pure but for the randomness of keys: the time is an argument. Keys are ECDSA on P-256, which signs a
TLS handshake many times faster than RSA does. Everything is PEM, as a Secret holds it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

BACKDATED = timedelta(minutes=5)
"""A new certificate is valid from so long ago: the clock of an API server may be behind."""
_RENEWED_AFTER = 2 / 3
"""Of its life."""


class CertificateError(Exception):
    """What was given is no certificate, no key, or the two are not of one pair."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Dates:
    """When a certificate is valid, and when it is time for another one."""

    not_before: datetime
    renewal: datetime
    not_after: datetime


def make_authority(now: datetime, lifetime: timedelta) -> KeyPair:
    """Return a certificate authority that may sign serving certificates and no other authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    # Authorities that overlap have names of their own, so that nobody mistakes one for the other.
    name = _name(f"procscope webhook CA {serial:x}"[:64])
    builder = (
        _builder(name, name, serial, now, now + lifetime)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _pair(builder.sign(key, hashes.SHA256()), key)


def issue(authority: KeyPair, names: Iterable[str], now: datetime, lifetime: timedelta) -> KeyPair:
    """Return a serving certificate for the names, DNS names or addresses, signed by `authority`.

    It ends with its authority at the latest. Raises CertificateError for a broken `authority`.
    """
    listed = list(names)
    issuer = _load_certificate(authority.certificate)
    issuer_key = _load_key(authority.key)
    key = ec.generate_private_key(ec.SECP256R1())
    not_after = min(now + lifetime, issuer.not_valid_after_utc)
    builder = (
        _builder(_name(listed[0][:64]), issuer.subject, x509.random_serial_number(), now, not_after)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([_general_name(name) for name in listed]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )
    return _pair(builder.sign(issuer_key, hashes.SHA256()), key)


def dates(certificate: bytes) -> Dates:
    """Return the dates of the first certificate. Raises CertificateError."""
    loaded = _load_certificate(certificate)
    # The time before it was made is no part of its life.
    made = min(loaded.not_valid_before_utc + BACKDATED, loaded.not_valid_after_utc)
    life = loaded.not_valid_after_utc - made
    return Dates(
        not_before=loaded.not_valid_before_utc,
        renewal=made + life * _RENEWED_AFTER,
        not_after=loaded.not_valid_after_utc,
    )


def names_of(certificate: bytes) -> frozenset[str]:
    """Return the DNS names and addresses that it is for. Raises CertificateError."""
    loaded = _load_certificate(certificate)
    try:
        extension = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return frozenset()
    found = extension.value.get_values_for_type(x509.DNSName)
    addresses = extension.value.get_values_for_type(x509.IPAddress)
    return frozenset(found) | frozenset(str(address) for address in addresses)


def is_signed_by(certificate: bytes, authority: bytes) -> bool:
    """Tell whether the certificate's signature is the authority's. Raises CertificateError."""
    try:
        _load_certificate(certificate).verify_directly_issued_by(_load_certificate(authority))
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def check_pair(pair: KeyPair) -> None:
    """Raise CertificateError unless the key is that of the certificate."""
    certified = _load_certificate(pair.certificate).public_key()
    if certified != _load_key(pair.key).public_key():
        raise CertificateError("the private key is not that of the certificate")


def split_bundle(bundle: bytes) -> tuple[bytes, ...]:
    """Return the certificates of a bundle, each as PEM. Raises CertificateError."""
    if not bundle.strip():
        return ()
    try:
        loaded = x509.load_pem_x509_certificates(bundle)
    except ValueError as error:
        raise CertificateError(f"not a bundle of certificates: {error}") from None
    return tuple(one.public_bytes(serialization.Encoding.PEM) for one in loaded)


def join_bundle(certificates: Iterable[bytes]) -> bytes:
    """Return the certificates as one PEM text, each of them once."""
    return b"".join(dict.fromkeys(certificates))


def service_names(service: str, namespace: str) -> tuple[str, ...]:
    """Return the names that a Service is called by; the API server uses `SERVICE.NAMESPACE.svc`."""
    qualified = f"{service}.{namespace}.svc"
    return (qualified, f"{qualified}.cluster.local", f"{service}.{namespace}", service)


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "procscope"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, serial: int, now: datetime, not_after: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(serial)
        .not_valid_before(now - BACKDATED)
        .not_valid_after(not_after)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> KeyPair:
    return KeyPair(
        certificate=certificate.public_bytes(serialization.Encoding.PEM),
        key=key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def _load_certificate(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise CertificateError(f"not a certificate: {error}") from None


def _load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateError(f"not a private key: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError("not an elliptic curve key")
    return key
