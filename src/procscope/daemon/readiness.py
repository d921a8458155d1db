"""`sd_notify(3)`: tells the service manager what the daemon does, and has it keep descriptors."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping

from procscope.daemon import sockets

_log = logging.getLogger(__name__)
STORE_PREFIX = "procscope-"
"""Before the names of the descriptors that are kept."""


def notify(state: str, fds: Iterable[int] = ()) -> bool:
    """Send `state`, such as `READY=1`, to `$NOTIFY_SOCKET`; False where nobody listens.

    A name that starts with `@` is in the abstract namespace, as sd_notify(3) has it.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        sockets.notify(address, state.encode(errors="replace"), list(fds))
    except OSError as error:
        _log.warning("cannot tell the service manager %r: %s", state, error)
        return False
    return True


def has_descriptor_store() -> bool:
    """Tell whether the service manager says that it keeps descriptors (systemd 254: `$FDSTORE`)."""
    return os.environ.get("FDSTORE", "0") not in ("", "0") and "NOTIFY_SOCKET" in os.environ


def store_descriptors(fds: Mapping[str, int]) -> None:
    """Have systemd keep these for the next start, in the place of earlier ones of their names.

    Below systemd 254 nothing tells whether it does; one that does not ignores it.
    """
    if not _is_run_by_systemd():
        return
    remove_descriptors(fds)
    for name, fd in fds.items():
        notify(f"FDSTORE=1\nFDNAME={STORE_PREFIX}{name}", (fd,))


def remove_descriptors(names: Iterable[str]) -> None:
    """Have systemd close what it keeps by these names."""
    if _is_run_by_systemd():
        for name in names:
            notify(f"FDSTOREREMOVE=1\nFDNAME={STORE_PREFIX}{name}")


def _is_run_by_systemd() -> bool:
    return "NOTIFY_SOCKET" in os.environ and "INVOCATION_ID" in os.environ
