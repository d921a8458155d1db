"""How the hugetlb controller calls a huge page size."""

from __future__ import annotations

_KB_PER_MB = 1024
_KB_PER_GB = 1024 * 1024


def size_name(size_kb: int) -> str:
    """Return the size as in `hugetlb.2MB.max`.

    mem_fmt() in the kernel's `mm/hugetlb_cgroup.c` prints whole GB, MB or KB.
    """
    if size_kb >= _KB_PER_GB:
        return f"{size_kb // _KB_PER_GB}GB"
    return f"{size_kb // _KB_PER_MB}MB" if size_kb >= _KB_PER_MB else f"{size_kb}KB"
