"""What a mode allows, as the kernel itself decides it for a file of root's."""

from __future__ import annotations

import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procscope.fuse.filesystem import Caller
from procscope.fuse.permissions import HIDDEN_ID, check
from procscope.ids import Pid

MODES = st.integers(0, 0o777)
MASKS = st.integers(0, 7)
IDS = st.sampled_from([0, 1, 1000, 65534])


def allowed(uid: int, gid: int, mode: int, mask: int) -> bool:
    try:
        check(Caller(Pid(1), uid, gid, 2), mode, mask)
    except PermissionError:
        return False
    return True


@given(MODES, MASKS, IDS)
def test_root_reads_and_writes_all_and_runs_what_anybody_may_run(
    mode: int, mask: int, gid: int
) -> None:
    runs = bool(mode & 0o111) or not mask & os.X_OK
    assert allowed(0, gid, stat.S_IFREG | mode, mask) == runs
    assert allowed(0, gid, stat.S_IFDIR | mode, mask)


@given(MODES, MASKS, st.sampled_from([1, 1000, 65534]), IDS)
def test_others_have_the_bits_of_their_class_alone(
    mode: int, mask: int, uid: int, gid: int
) -> None:
    bits = (mode & 0o070) >> 3 if gid == 0 else mode & 0o007
    assert allowed(uid, gid, stat.S_IFREG | mode, mask) == (mask & bits == mask)


@given(MODES, MASKS)
def test_whom_the_kernel_has_checked_is_not_checked_again(mode: int, mask: int) -> None:
    assert allowed(HIDDEN_ID, HIDDEN_ID, mode, mask)


def test_the_refusal_is_eacces() -> None:
    with pytest.raises(PermissionError, match="Permission denied"):
        check(Caller(Pid(1), 1000, 1000, 2), stat.S_IFREG | 0o400, os.R_OK)
