"""The entry point: turns the command line into one command, and its errors into one line."""

from __future__ import annotations

import contextlib
import os
import sys

from procscope.errors import ExitCode, ProcscopeError


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    from procscope.cli.commands import run_command

    debug = bool(os.environ.get("PROCSCOPE_TRACEBACK"))
    try:
        try:
            return run_command(sys.argv[1:] if arguments is None else arguments)
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


def _discard_output() -> None:
    """Let the interpreter flush at its exit to where nothing fails."""
    with (
        contextlib.suppress(OSError, ValueError, AttributeError),
        open(os.devnull, "wb") as nowhere,
    ):
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
