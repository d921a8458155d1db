"""The content of the mount: which names there are, and which view stands behind each.

Implements the protocol of `procscope.fuse.filesystem`. Node ids are computed from the path.
"""
