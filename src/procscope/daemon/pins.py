"""The containers that are pinned: a small file for each, by the number that node ids carry.

The files outlive every process of the daemon, as the kernel's inodes do. They are never changed,
and a number is another container's only after the sampler has found the first one gone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import time
from collections.abc import Mapping

from procscope.containers.container import Container
from procscope.digest import blake2b, compare_digest
from procscope.ids import CgroupPath, ContainerKey
from procscope.tree.pinnedids import NUMBER_BITS
from procscope.tree.pins import Pin

_log = logging.getLogger(__name__)
_NUMBERS = 1 << NUMBER_BITS
_TRIES = 64
_SECRET_BYTES = 16
_CAPACITY = 8192
_NAME = re.compile(r"([0-9a-f]{5})-[0-9a-f]{32}", re.ASCII)
_NEW_S = 60.0
"""A record is made just before the pin of the same container, and not at all on a full disk."""
_SWEEP_EVERY_S = 30.0
_MAX_BYTES = 1 << 16


class PinStore:
    """The pins in `directory`, whose containers' records are in `records_directory`."""

    def __init__(self, directory: str, records_directory: str) -> None:
        self._directory = directory
        self._records_directory = records_directory
        self._by_number: dict[int, Pin] = {}
        self._by_lifetime: dict[str, Pin] = {}
        self._next_sweep_s = 0.0
        self._made = 0

    def of_lifetime(self, container: Container, lifetime: str) -> Pin | None:
        """See `Pins.of_lifetime`."""
        known = self._by_lifetime.get(lifetime)
        if known is not None:
            return known
        try:
            return self._find_or_make(container, lifetime)
        except OSError as error:
            _log.warning(
                "%s cannot take a container, whose files are the live tree's: %s",
                self._directory,
                error.strerror,
            )
            return None

    def of_number(self, number: int) -> Pin | None:
        """See `Pins.of_number`."""
        known = self._by_number.get(number)
        if known is not None:
            return known
        pin = self._read(number)
        return None if pin is None else self._remember(pin)

    def of_name(self, name: str) -> Pin | None:
        """See `Pins.of_name`."""
        found = _NAME.fullmatch(name)
        pin = self.of_number(int(found[1], 16)) if found else None
        return pin if pin is not None and compare_digest(pin.name, name) else None

    def sweep(self) -> None:
        """See `Pins.sweep`: the sampler removes the records of those that have gone."""
        now_s = time.monotonic()
        if now_s < self._next_sweep_s:
            return
        self._next_sweep_s = now_s + _SWEEP_EVERY_S
        with contextlib.suppress(OSError):
            for name in os.listdir(self._directory):
                self._remove_if_gone(name)

    def _remove_if_gone(self, name: str) -> None:
        path = os.path.join(self._directory, name)
        pin = self._read(int(name, 16)) if re.fullmatch("[0-9a-f]{5}", name) else None
        if pin is not None and os.path.lexists(os.path.join(self._records_directory, pin.lifetime)):
            return
        with contextlib.suppress(OSError):
            if time.time() - os.stat(path).st_mtime > _NEW_S:
                os.unlink(path)
                if pin is not None:
                    self._by_number.pop(pin.number, None)
                    self._by_lifetime.pop(pin.lifetime, None)

    def _find_or_make(self, container: Container, lifetime: str) -> Pin | None:
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        digest = blake2b(lifetime.encode(), digest_size=8).digest()
        first = int.from_bytes(digest, "little")
        for step in range(_TRIES):
            number = (first + step) % _NUMBERS
            pin = self._read(number)
            if pin is None and not self._is_taken(number):
                pin = self._make(number, container, lifetime)
            if pin is not None and pin.lifetime == lifetime:
                return self._remember(pin)
        return None

    def _is_taken(self, number: int) -> bool:
        """Tell whether there is a file, though it cannot be read."""
        return os.path.lexists(self._path(number))

    def _make(self, number: int, container: Container, lifetime: str) -> Pin | None:
        """Write the file, whole or not at all; return whatever has the number afterwards."""
        pin = Pin(number, f"{number:05x}-{os.urandom(_SECRET_BYTES).hex()}", container, lifetime)
        self._made += 1
        temporary = os.path.join(self._directory, f"new-{os.getpid()}-{self._made}")
        with open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(_to_json(pin))
        try:
            os.link(temporary, self._path(number))
        except FileExistsError:
            return self._read(number)
        finally:
            os.unlink(temporary)
        return pin

    def _read(self, number: int) -> Pin | None:
        try:
            with open(self._path(number), encoding="utf-8", errors="surrogateescape") as file:
                return _from_json(file.read(_MAX_BYTES), number)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def _remember(self, pin: Pin) -> Pin:
        if len(self._by_number) >= _CAPACITY:
            self._by_number.clear()
            self._by_lifetime.clear()
        self._by_number[pin.number] = pin
        self._by_lifetime[pin.lifetime] = pin
        return pin

    def _path(self, number: int) -> str:
        return os.path.join(self._directory, f"{number:05x}")


def _to_json(pin: Pin) -> str:
    container = pin.container
    return json.dumps(
        {
            "name": pin.name,
            "lifetime": pin.lifetime,
            "key": container.key,
            "cgroups": dict(container.cgroups),
            "runtime": container.runtime,
            "id": container.id,
        }
    )


def _from_json(text: str, number: int) -> Pin:
    """Return what was written. Raises ValueError, KeyError, TypeError or AttributeError."""
    stored = json.loads(text)
    cgroups: Mapping[str, CgroupPath] = {
        str(controller): CgroupPath(str(path)) for controller, path in stored["cgroups"].items()
    }
    container = Container(
        ContainerKey(str(stored["key"])), cgroups, str(stored["runtime"]), str(stored["id"])
    )
    name = str(stored["name"])
    found = _NAME.fullmatch(name)
    if found is None or int(found[1], 16) != number:
        raise ValueError("not what was written here")
    return Pin(number, name, container, str(stored["lifetime"]))
