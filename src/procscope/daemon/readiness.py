"""`sd_notify(3)`: tells the service manager that the daemon is ready, and what it does."""

from __future__ import annotations

import logging
import os
import socket

_log = logging.getLogger(__name__)


def notify(state: str) -> bool:
    """Send `state`, such as `READY=1`, to `$NOTIFY_SOCKET`; False where nobody listens.

    A name that starts with `@` is in the abstract namespace, as sd_notify(3) has it.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.sendto(state.encode(errors="replace"), address)
    except OSError as error:
        _log.warning("cannot tell the service manager %r: %s", state, error)
        return False
    return True
