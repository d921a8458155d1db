"""The FUSE kernel protocol on /dev/fuse, by the names of `<linux/fuse.h>`.

Mount, INIT, decoding of requests and encoding of replies for a read-only filesystem. Knows nothing
of containers, cgroups and views: what is served is behind the protocol in `filesystem`.
"""
