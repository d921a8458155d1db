"""TLS handshakes without a network: a client and a server that exchange bytes in memory."""

from __future__ import annotations

import ssl

from procscope.kubernetes.certificates import KeyPair
from procscope.kubernetes.metrics import Metrics
from procscope.kubernetes.tls import ServingCertificate


def server_context(pair: KeyPair) -> ssl.SSLContext:
    """The server's context, once it serves `pair`."""
    serving = ServingCertificate(Metrics())
    serving.use(pair)
    return serving.context


def handshake(context: ssl.SSLContext, authorities: bytes, name: str) -> str:
    """Why a client that trusts `authorities` alone does not trust the server; empty if it does."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT
    trusting.load_verify_locations(cadata=authorities.decode())
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server, server_hostname=name)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    finished = 0
    while finished < 2:
        finished = 0
        for side in (client, server):
            try:
                side.do_handshake()
                finished += 1
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                return str(error)
    return ""
