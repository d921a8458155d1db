"""The keys and certificates of a cluster: one authority, and what each program shows to others."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.cluster.harness.layout import API_ADDRESS, DOMAIN, NODE, NODE_ADDRESS

LIFETIME = datetime.timedelta(days=365)
BACKDATED = datetime.timedelta(hours=1)

API_NAMES = (
    *("kubernetes", "kubernetes.default", "kubernetes.default.svc"),
    *(f"kubernetes.default.svc.{DOMAIN}", "localhost"),
)

SUBJECTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "admin": ("admin", ("system:masters",)),
    "controller-manager": ("system:kube-controller-manager", ()),
    "scheduler": ("system:kube-scheduler", ()),
    "kubelet": (f"system:node:{NODE}", ("system:nodes",)),
    "apiserver-to-kubelet": ("kube-apiserver", ("system:masters",)),
}
"""Who has a client certificate: file, user and groups."""


def make_pki(directory: Path) -> None:
    """Fill `directory` with NAME.crt and NAME.key; the authority is `ca`, the signer is `sa`."""
    directory.mkdir(mode=0o700)
    ca_key, ca = _authority()
    _write(directory, "ca", ca_key, ca)
    for name, (user, groups) in SUBJECTS.items():
        _issue(directory, name, _subject(user, groups), (), (ca_key, ca))
    api = (*API_NAMES, API_ADDRESS, NODE_ADDRESS, "127.0.0.1")
    _issue(directory, "apiserver", _subject("kube-apiserver", ()), api, (ca_key, ca))
    node = (NODE, NODE_ADDRESS, "127.0.0.1")
    _issue(directory, "kubelet-server", _subject(NODE, ()), node, (ca_key, ca))
    signer = ec.generate_private_key(ec.SECP256R1())
    (directory / "sa.key").write_bytes(_private(signer))
    (directory / "sa.pub").write_bytes(
        signer.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def _subject(user: str, groups: tuple[str, ...]) -> x509.Name:
    """Kubernetes takes the user from the common name and the groups from the organizations."""
    organizations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*organizations, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _builder(subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + LIFETIME)
    )


def _authority() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject("procscope test cluster", ())
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        _builder(subject, key)
        .issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return key, builder.sign(key, hashes.SHA256())


def _issue(
    directory: Path,
    name: str,
    subject: x509.Name,
    hosts: tuple[str, ...],
    issuer: tuple[ec.EllipticCurvePrivateKey, x509.Certificate],
) -> None:
    """Write a certificate: for a server if it has hosts, otherwise for a client."""
    ca_key, ca = issuer
    key = ec.generate_private_key(ec.SECP256R1())
    usage = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        _builder(subject, key)
        .issuer_name(ca.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    )
    if hosts:
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        builder = builder.add_extension(names, critical=False)
    _write(directory, name, key, builder.sign(ca_key, hashes.SHA256()))


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(
    directory: Path, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate
) -> None:
    (directory / f"{name}.key").write_bytes(_private(key))
    (directory / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
