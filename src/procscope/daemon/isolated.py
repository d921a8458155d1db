"""How a daemon executes another part of itself: the same interpreter, and the same code.

Isolated: neither the working directory nor the environment nor what is installed beside it says
which code root executes.
"""

from __future__ import annotations

import os
import sys

_ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
_CODE = (
    "import sys; sys.path.insert(0, sys.argv[1])\n"
    "sys.exit(__import__(sys.argv[2], fromlist=['main']).main(sys.argv[3:]))"
)


def command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs `main(arguments)` of a module of this package."""
    return [sys.executable, "-I", "-S", "-c", _CODE, _ROOT, module, *arguments]
