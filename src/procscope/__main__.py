"""The entry point: turns the command line into one command, and its errors into one line."""

from __future__ import annotations

import os
import sys

from procscope.errors import ExitCode, ProcscopeError


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    from procscope.cli.commands import run_command

    debug = bool(os.environ.get("PROCSCOPE_TRACEBACK"))
    try:
        return run_command(sys.argv[1:] if arguments is None else arguments)
    except ProcscopeError as error:
        if debug:
            raise
        print(f"procscope: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output has seen enough; the interpreter must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except OSError as error:
        # What no layer foresaw, such as a full disk: its own words say what and where.
        if debug:
            raise
        print(f"procscope: {error}", file=sys.stderr)
        return ExitCode.FAILED
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
