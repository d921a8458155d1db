"""What a forked child has to say to the launcher when it cannot go on, through a pipe.

The pipe closes by itself when the command is executed, so that silence means success.
"""

from __future__ import annotations

import os

from procscope.errors import ExitCode, ProcscopeError
from procscope.units import shorten
from procscope.values import frozen

_PIPE_BUF = 4096
"""A pipe takes this much in one piece and without waiting."""

_MAX_LENGTH = 500
"""Of each line: two of them, four bytes a character, fit."""


@frozen
class ReportPipe:
    """Both ends of the pipe."""

    reader: int
    writer: int

    def send(self, error: ProcscopeError) -> None:
        """Tell the launcher why the sandbox ends."""
        lines = (str(int(error.exit_code)), error.message, error.hint)
        text = "\n".join(shorten(line.replace("\n", " "), _MAX_LENGTH) for line in lines)
        os.write(self.writer, text.encode("utf-8", "replace"))

    def receive(self) -> ProcscopeError | None:
        """Return what was sent, None for nothing. The sandbox must have ended."""
        try:
            text = os.read(self.reader, _PIPE_BUF).decode("utf-8", "replace")
        except BlockingIOError:  # Nothing was sent, and another process still could.
            return None
        fields = text.split("\n", 2)
        if len(fields) != 3 or not fields[0].isdigit():
            return None
        return ProcscopeError(fields[1], hint=fields[2], exit_code=ExitCode(int(fields[0])))

    def close(self) -> None:
        """Close both ends."""
        os.close(self.reader)
        os.close(self.writer)


def open_report_pipe() -> ReportPipe:
    """Return a new pipe; neither end is inherited over exec(2), and reading never waits."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    return ReportPipe(reader, writer)
