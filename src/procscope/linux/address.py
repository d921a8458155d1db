"""Where to listen, as a user writes it."""

from __future__ import annotations

import ipaddress
import os
import socket

from procscope.errors import ProcscopeError
from procscope.values import frozen

_MAX_PORT = 65535


@frozen
class Address:
    """An address and a port; the empty address is every one that the host has."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Return what `:9464`, `127.0.0.1:9464` or `[::1]:9464` says. Raises ProcscopeError."""
        host, colon, port = text.rpartition(":")
        if colon and port.isascii() and port.isdecimal() and int(port) <= _MAX_PORT:
            if not host:
                return cls("", int(port))
            bracketed = host.startswith("[") and host.endswith("]")
            try:
                address = ipaddress.ip_address(host[1:-1] if bracketed else host)
            except ValueError:
                address = None
            if address is not None and bracketed == (address.version == 6):
                return cls(str(address), int(port))
        raise ProcscopeError(
            f"cannot listen at {text!r}", hint="give :9464, 127.0.0.1:9464 or [::1]:9464"
        )

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def listen(self) -> socket.socket:
        """Return a listening socket; of IPv4 and IPv6 for every address. Raises ProcscopeError."""
        try:
            if self.host:
                family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
                return socket.create_server((self.host, self.port), family=family)
            return self._listen_everywhere()
        except OSError as error:
            # The library adds to the system's words.
            why = os.strerror(error.errno) if error.errno else str(error)
            raise ProcscopeError(
                f"cannot listen at {self}: {why}",
                hint="give another address",
            ) from None

    def _listen_everywhere(self) -> socket.socket:
        everywhere = ("", self.port)
        try:
            return socket.create_server(everywhere, family=socket.AF_INET6, dualstack_ipv6=True)
        except (OSError, ValueError):
            # IPv6 is switched off, in the kernel or for this network namespace.
            return socket.create_server(everywhere)
