"""What the Secret holds, and the next step of its life: pure, so that every order can be tried.

Kubernetes trusts a webhook by the `caBundle` of its configuration. No admission may fail while that
changes, so a new authority goes through three steps, and each waits for the one before:

1. it is made, and published beside the old one; nothing is signed by it yet;
2. once every API server knows it, it takes the old one's place and signs a serving certificate;
3. once every replica serves that, the old one leaves the bundle.

A serving certificate that is renewed under the same authority needs none of this.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from procscope.kubernetes.certificates import (
    CertificateError,
    KeyPair,
    check_pair,
    dates,
    is_signed_by,
    issue,
    join_bundle,
    make_authority,
    names_of,
    split_bundle,
)


@dataclass(frozen=True, slots=True)
class Holding:
    """What the Secret holds."""

    authority: KeyPair
    """Signs now."""
    serving: KeyPair
    successor: KeyPair | None = None
    """The authority that takes over as soon as it is known everywhere."""
    retired: tuple[bytes, ...] = ()
    """Certificates of authorities that sign no more; somebody may still serve what they signed."""

    def bundle(self) -> bytes:
        """Return the authorities to trust, as PEM: the `caBundle`."""
        successor = (self.successor.certificate,) if self.successor else ()
        return join_bundle((self.authority.certificate, *successor, *self.retired))


@dataclass(frozen=True, slots=True)
class Terms:
    """What certificates are made for, and for how long."""

    names: tuple[str, ...]
    authority_lifetime: timedelta
    certificate_lifetime: timedelta

    @property
    def _shortest_s(self) -> float:
        return min(self.authority_lifetime, self.certificate_lifetime).total_seconds()

    @property
    def interval_s(self) -> float:
        """How often a replica looks at the Secret, and the leader at the configuration."""
        return min(3.0, self._shortest_s / 30)

    @property
    def settling_s(self) -> float:
        """How long after a change of the configuration every API server is sure to know it."""
        return min(10.0, self._shortest_s / 20)

    @property
    def overlap_s(self) -> float:
        """How long a retired authority is trusted on."""
        return min(3600.0, self._shortest_s / 10)


def first(now: datetime, terms: Terms) -> Holding:
    """Return what a Secret that holds nothing is to hold."""
    authority = make_authority(now, terms.authority_lifetime)
    return Holding(authority, _serving(authority, now, terms))


def restored(held: Holding, now: datetime, terms: Terms) -> Holding:
    """Return what a Secret is to hold that was emptied, by the one who still serves from `held`.

    Whoever empties it wants other keys. They come, by the same steps as ever.
    """
    return replace(held, successor=make_authority(now, terms.authority_lifetime))


def advanced(
    held: Holding, now: datetime, terms: Terms, *, published: bool, overlapped: bool
) -> Holding:
    """Return what the Secret is to hold next; the same object if there is nothing to do.

    `published`: every API server has trusted the whole bundle for as long as it takes to settle.
    `overlapped`: the present authority has been in use for the time that retired ones are kept.
    Takes one step at a time. Raises CertificateError where `held` is broken.
    """
    authority = dates(held.authority.certificate)
    if now >= authority.not_after:
        # Nobody trusts what it signed, so there is nothing to be careful of.
        return first(now, terms)
    if held.successor is not None and published:
        return Holding(
            authority=held.successor,
            serving=_serving(held.successor, now, terms),
            retired=(held.authority.certificate, *held.retired),
        )
    if held.successor is None and now >= authority.renewal:
        return replace(held, successor=make_authority(now, terms.authority_lifetime))
    if _is_due(held, now, terms):
        return replace(held, serving=_serving(held.authority, now, terms))
    kept = tuple(one for one in held.retired if not overlapped and now < dates(one).not_after)
    return held if kept == held.retired else replace(held, retired=kept)


def _is_due(held: Holding, now: datetime, terms: Terms) -> bool:
    serving = dates(held.serving.certificate)
    authority = dates(held.authority.certificate)
    # One that ends with its authority cannot be made to last longer.
    is_last = serving.not_after >= authority.not_after and now < serving.not_after
    return (
        (now >= serving.renewal and not is_last)
        or names_of(held.serving.certificate) != frozenset(terms.names)
        or not is_signed_by(held.serving.certificate, held.authority.certificate)
    )


def _serving(authority: KeyPair, now: datetime, terms: Terms) -> KeyPair:
    return issue(authority, terms.names, now, terms.certificate_lifetime)


def to_data(held: Holding) -> dict[str, str]:
    """Return the `data` of the Secret."""
    successor = held.successor or KeyPair(b"", b"")
    fields = {
        "ca.crt": held.authority.certificate,
        "ca.key": held.authority.key,
        "next-ca.crt": successor.certificate,
        "next-ca.key": successor.key,
        "previous-ca.crt": join_bundle(held.retired),
        "tls.crt": held.serving.certificate,
        "tls.key": held.serving.key,
    }
    return {name: base64.b64encode(value).decode() for name, value in fields.items()}


def from_data(data: Mapping[str, str] | None) -> Holding | None:
    """Return what the `data` of a Secret holds; None if it holds nothing yet.

    Raises CertificateError for anything that could not be served from.
    """
    if not data:
        return None
    authority = _pair(data, "ca")
    serving = _pair(data, "tls")
    successor = _pair(data, "next-ca") if data.get("next-ca.crt") else None
    retired = split_bundle(_decode(data, "previous-ca.crt"))
    if not is_signed_by(serving.certificate, authority.certificate):
        raise CertificateError("tls.crt is not signed by ca.crt")
    return Holding(authority, serving, successor, retired)


def _pair(data: Mapping[str, str], name: str) -> KeyPair:
    pair = KeyPair(_decode(data, f"{name}.crt"), _decode(data, f"{name}.key"))
    try:
        check_pair(pair)
    except CertificateError as error:
        raise CertificateError(f"{name}.crt and {name}.key: {error}") from None
    return pair


def _decode(data: Mapping[str, str], key: str) -> bytes:
    try:
        return base64.b64decode(data.get(key, ""), validate=True)
    except ValueError as error:
        raise CertificateError(f"{key} is not base64: {error}") from None
