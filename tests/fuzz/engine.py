"""One target under atheris, in a process of its own: libFuzzer never returns.

`python -m tests.fuzz.engine TARGET LIBFUZZER-ARGUMENTS`
"""

from __future__ import annotations

import importlib
import logging
import sys


def main(arguments: list[str]) -> None:
    """Fuzz one target with all of the package instrumented."""
    name, *options = arguments
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["procscope"]):
        targets = importlib.import_module("tests.fuzz.targets").TARGETS
    # What a filesystem's failure writes to the log is not looked at here.
    logging.disable(logging.CRITICAL)
    atheris.Setup([sys.argv[0], *options], targets[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
