"""Give each container its own view of /proc and /sys, through a FUSE filesystem."""

__version__ = "0.1.0"
