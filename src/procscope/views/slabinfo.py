"""`/proc/slabinfo`: the version and the column names, as print_slabinfo_header() prints them.

The host's caches are nobody's business in a container. The kernel source is `mm/slab_common.c`.
"""

from __future__ import annotations

_HEADER = (
    b"slabinfo - version: 2.1\n"
    b"# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab>"
    b" : tunables <limit> <batchcount> <sharedfactor>"
    b" : slabdata <active_slabs> <num_slabs> <sharedavail>\n"
)


def render(host_slabinfo: bytes) -> bytes:
    """Return the host's two header lines; version 2.1's where they are not the kernel's."""
    lines = host_slabinfo.split(b"\n", 2)
    if (
        len(lines) == 3
        and lines[0].split()[:3] == [b"slabinfo", b"-", b"version:"]
        and lines[1].split()[:2] == [b"#", b"name"]
    ):
        return b"%s\n%s\n" % (lines[0], lines[1])
    return _HEADER
