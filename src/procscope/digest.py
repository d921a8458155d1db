"""BLAKE2 and a comparison that takes as long for any text, without OpenSSL.

`hashlib`, `hmac` and `secrets` load libcrypto whatever is asked of them, and `secrets` all of
`random`: one and a half megabytes in a daemon, and milliseconds of its start. The interpreter has
both functions in itself; where one does not, they come from there.
"""

from __future__ import annotations

try:
    from _blake2 import blake2b
    from _operator import _compare_digest as compare_digest
except ImportError:  # pragma: no cover - another implementation of Python
    from hashlib import blake2b
    from hmac import compare_digest  # type: ignore[no-redef]

__all__ = ["blake2b", "compare_digest"]
