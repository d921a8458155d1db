"""Who may do what with a file, where the kernel leaves that to the filesystem.

Without the mount option `default_permissions` the kernel checks no modes (fuse_permission() in
fs/fuse/dir.c): it sends OPEN, and ACCESS for access(2) and chdir(2), whoever calls. With it the
kernel has checked already; what is found here is the same then.
"""

from __future__ import annotations

import os
import stat
from errno import EACCES
from typing import Final

from procscope.fuse.filesystem import Caller

HIDDEN_ID: Final = 0xFFFFFFFF
"""Instead of a uid, where FUSE_ALLOW_IDMAP was agreed: the kernel checks modes itself."""


def check(caller: Caller, mode: int, mask: int) -> None:
    """Return where `caller` may do `mask` (R_OK, W_OK, X_OK) with a file of root's and this mode.

    As generic_permission() in fs/namei.c, for root with all capabilities. Of the caller's groups
    only the first is known. Raises OSError(EACCES).
    """
    if caller.uid == HIDDEN_ID:
        return
    if caller.uid == 0:
        can_run = stat.S_ISDIR(mode) or mode & 0o111
        allowed = os.R_OK | os.W_OK | (os.X_OK if can_run else 0)
    else:
        allowed = mode >> 3 if caller.gid == 0 else mode
    if mask & ~allowed:
        raise PermissionError(EACCES, os.strerror(EACCES))
