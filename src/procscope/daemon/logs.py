"""Logging of the daemon: to stderr, one line each, the same line not without end."""

from __future__ import annotations

import logging
import sys
import time

from procscope.errors import one_line

_BURST = 5
_PERIOD_S = 60.0


class RateLimit(logging.Filter):
    """Lets each message through a few times a minute, and says how many were left out.

    A message is told apart by where it is logged and by its arguments' first item, which names the
    subject (a view, a request).
    """

    def __init__(self, burst: int = _BURST, period_s: float = _PERIOD_S) -> None:
        super().__init__()
        self._burst = burst
        self._period_s = period_s
        self._seen: dict[tuple[object, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether to write the record."""
        subject = record.args[0] if isinstance(record.args, tuple) and record.args else None
        key = (record.pathname, record.lineno, str(subject))
        started_s, count = self._seen.get(key, (record.created, 0))
        if record.created - started_s >= self._period_s:
            if count > self._burst:
                record.msg = f"{record.msg} ({count - self._burst} such lines left out)"
            started_s, count = record.created, 0
        self._seen[key] = (started_s, count + 1)
        if len(self._seen) > 1000:
            self._seen.clear()
        return count < self._burst


def configure(*, debug: bool) -> None:
    """Send the log to stderr; with `debug` every request is traced, and nothing is left out."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    if not debug:
        handler.addFilter(RateLimit())
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.INFO, handlers=[handler], force=True
    )


class _Formatter(logging.Formatter):
    """`<time> <level> <message>` on a line of its own, tracebacks below it."""

    def __init__(self) -> None:
        super().__init__(
            "%(asctime)s.%(msecs)03dZ %(levelname)s [%(process)d] %(message)s",
            datefmt="%Y-%m-%dT%H:%M:%S",
        )
        self.converter = time.gmtime

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        """Return the line; what is not printable in it, as in a cgroup's name, is escaped."""
        return one_line(super().formatMessage(record))
