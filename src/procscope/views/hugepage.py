"""How the hugetlb controller calls the host's default huge page size."""

from __future__ import annotations

import re

_SIZE = re.compile(rb"^Hugepagesize:\s+(\d{1,12}) kB$", re.ASCII | re.MULTILINE)
_KB_PER_MB = 1024
_KB_PER_GB = 1024 * 1024


def default_size_name(host_meminfo: bytes) -> str:
    """Return the size as in `hugetlb.2MB.max`; empty where the host has no huge pages.

    mem_fmt() in the kernel's `mm/hugetlb_cgroup.c` prints whole GB, MB or KB.
    """
    found = _SIZE.search(host_meminfo)
    if found is None:
        return ""
    size_kb = int(found[1])
    if size_kb >= _KB_PER_GB:
        return f"{size_kb // _KB_PER_GB}GB"
    return f"{size_kb // _KB_PER_MB}MB" if size_kb >= _KB_PER_MB else f"{size_kb}KB"
