"""The one exception that ends a command with a line instead of a traceback."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the commands; `procscope run` passes its command's own through."""

    OK = 0
    FAILED = 1
    USAGE = 2
    RUN_FAILED = 125
    """`procscope run` itself failed, as `docker run` and `env` report it."""
    COMMAND_NOT_EXECUTABLE = 126
    COMMAND_NOT_FOUND = 127


class ProcscopeError(Exception):
    """Something a user can cause and mend: what is wrong, where, and what to do.

    `hint` is the advice; both are shown on one line. `exit_code` ends the process.
    """

    def __init__(
        self, message: str, *, hint: str = "", exit_code: ExitCode = ExitCode.FAILED
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code

    def __str__(self) -> str:
        return one_line(f"{self.message}: {self.hint}" if self.hint else self.message)


def one_line(text: str) -> str:
    """Return `text` with what is no printable character escaped.

    Users' words are quoted in messages, and names that containers have chosen.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
