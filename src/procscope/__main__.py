"""The entry point: turns the command line into one command, and its errors into one line."""

from __future__ import annotations

import contextlib
import gc
import os
import sys

from procscope.errors import ExitCode, ProcscopeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn


def process() -> NoReturn:
    """Be the process of one command line.

    It ends without the interpreter's taking itself apart, which takes as long as a third of its
    start and gives nothing back that the kernel does not.
    """
    try:
        code = main()
    except SystemExit as ending:
        # Of argparse, which has written what there is to say.
        if not isinstance(ending.code, int):
            raise
        code = ending.code
    if sys.stderr is not None:
        sys.stderr.flush()
    os._exit(code)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    debug = bool(os.environ.get("PROCSCOPE_TRACEBACK"))
    try:
        try:
            return _prepared(sys.argv[1:] if arguments is None else arguments)()
        finally:
            # What cannot be written shows here, and not as a complaint of the interpreter's exit.
            if sys.stdout is not None:
                sys.stdout.flush()
    except ProcscopeError as error:
        if debug:
            raise
        print(f"procscope: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        _discard_output()
        return ExitCode.OK
    except OSError as error:
        if debug:
            raise
        what = error.strerror or str(error)
        where = f"{error.filename}: " if error.filename else ""
        print(f"procscope: {where}{what}", file=sys.stderr)
        _discard_output()
        return ExitCode.FAILED
    except KeyboardInterrupt:
        return 130


def _prepared(arguments: list[str]) -> Callable[[], int]:
    """Return the command that the arguments name, with all that it imports at its start.

    Meanwhile no garbage is collected: imports make none, and to look for it is a twentieth of
    their time.
    """
    gc.disable()
    try:
        from procscope.cli.commands import prepare

        return prepare(arguments)
    finally:
        gc.enable()


def _discard_output() -> None:
    """Let the interpreter flush at its exit to where nothing fails."""
    with (
        contextlib.suppress(OSError, ValueError, AttributeError),
        open(os.devnull, "wb") as nowhere,
    ):
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


if __name__ == "__main__":
    process()
