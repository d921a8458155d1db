"""The server's side of TLS: one context for the life of the server, its certificate exchangeable.

A connection keeps the certificate that it began with, so that an exchange disturbs nobody.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from contextlib import closing
from typing import Final

from procscope.errors import ProcscopeError, one_line
from procscope.kubernetes.certificates import CertificateError, KeyPair, dates
from procscope.kubernetes.metrics import Metrics

_FILES_INTERVAL_S: Final = 1.0

log = logging.getLogger(__name__)


class ServingCertificate:
    """The certificate that is served, and the context that serves it."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._pair: KeyPair | None = None
        self.context: Final = _new_context()

    @property
    def pair(self) -> KeyPair | None:
        """What is served; None before the first one, when every handshake fails."""
        return self._pair

    def use(self, pair: KeyPair) -> None:
        """Serve `pair` to connections that begin from now on. Raises CertificateError.

        What cannot be used changes nothing.
        """
        if pair == self._pair:
            return
        validity = dates(pair.certificate)
        # First where it does no harm: OpenSSL drops the key of a context whose next one is wrong.
        _load(_new_context(), pair)
        _load(self.context, pair)
        self._pair = pair
        self._metrics.certificate_loaded(validity.not_after.timestamp())
        log.info("serving a certificate that is valid until %s", validity.not_after.isoformat())


class CertificateFiles:
    """A certificate and a key that somebody else keeps current: cert-manager, or a person."""

    def __init__(
        self, certificate: str, key: str, serving: ServingCertificate, metrics: Metrics
    ) -> None:
        self._paths = (certificate, key)
        self._serving = serving
        self._metrics = metrics
        self._seen: tuple[tuple[int, int, int], ...] = ()

    def load(self) -> None:
        """Read both files if one has changed, and serve what they contain.

        Raises CertificateError and OSError, and tries again when asked again.
        """
        # A Secret's volume is replaced by exchanging a link, which stat(2) follows.
        seen = tuple(
            (status.st_ino, status.st_mtime_ns, status.st_size)
            for status in (os.stat(path) for path in self._paths)
        )
        if seen == self._seen:
            return
        self._serving.use(KeyPair(*(_content(path) for path in self._paths)))
        self._seen = seen

    def load_first(self) -> None:
        """Load at the start. Raises ProcscopeError."""
        try:
            self.load()
        except (CertificateError, OSError) as error:
            raise ProcscopeError(
                f"cannot serve from {self._paths[0]} and {self._paths[1]}: {_reason(error)}",
                hint="--tls-cert and --tls-key name PEM files of one pair",
            ) from None

    async def run(self) -> None:
        """Look for changes until cancelled."""
        while True:
            await asyncio.sleep(_FILES_INTERVAL_S)
            try:
                self.load()
            except (CertificateError, OSError) as error:
                # One file may have been written and the other not yet.
                self._metrics.failed("certificate")
                log.warning("%s cannot be used: %s", self._paths[0], _reason(error))


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return one_line(str(error))


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # What the API server asks for, so that it spreads its requests over all replicas.
    context.set_alpn_protocols(["http/1.1"])
    return context


def _load(context: ssl.SSLContext, pair: KeyPair) -> None:
    """Load from memory, by way of a memfd: the key never comes to lie on a disk."""
    # OpenSSL reads files alone; and without a password it would ask at the terminal for one.
    fd = os.memfd_create("procscope-certificate")
    try:
        with closing(os.fdopen(fd, "wb", closefd=False)) as file:
            file.write(pair.key.rstrip() + b"\n" + pair.certificate)
        context.load_cert_chain(f"/proc/self/fd/{fd}", password="")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        raise CertificateError(f"OpenSSL does not take it: {reason}") from None
    finally:
        os.close(fd)
