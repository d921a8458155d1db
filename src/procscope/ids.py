"""Identifiers that must not be mixed, one `NewType` each."""

from typing import NewType

Pid = NewType("Pid", int)
"""A process or thread id as the host's PID namespace numbers it."""

NodeId = NewType("NodeId", int)
"""The `nodeid` of a FUSE inode; 1 is the root of the mount."""

FileHandle = NewType("FileHandle", int)
"""The `fh` of an open file or directory; 0 means that no content was kept for it."""

CpuId = NewType("CpuId", int)
"""A logical CPU as the host's kernel numbers it."""

CgroupPath = NewType("CgroupPath", str)
"""A cgroup's path below the root of its hierarchy, `/` for the root itself."""

ContainerKey = NewType("ContainerKey", str)
"""A short, file-name safe text that is unique to one container's lifetime on this host."""
