"""From a reader's pid to its container.

1. A reader that is not visible (pid 0) or gone is the host.
2. The innermost component of its cgroup path that a known runtime made ends the container's path.
3. Otherwise, in a PID namespace of its own: the cgroup of that namespace's init, if the reader is
   in it or below it.
4. Otherwise the reader's own cgroup; the root cgroup is the host.

An answer is cached with the open `/proc/PID/cgroup` files it was made from, and holds as long as
they read the same. The kernel answers ESRCH on such a file once its process is gone
(`proc_single_show()` in `fs/proc/base.c`), also when the pid is in use again, so that a cached
answer never outlives its process and never misses a move to another cgroup.

Of readers beyond those, and of new ones, the text is read. What it means is known as long as
anybody has the container: a reader of one that is being read costs no search for it.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from sys import intern
from typing import Protocol
from weakref import WeakValueDictionary

from procscope.cgroup.files import RUN_OUT, FileBudget, open_for_reading
from procscope.containers.container import Container, container_of_paths
from procscope.containers.runtimes import match_path
from procscope.digest import blake2b
from procscope.ids import CgroupPath, Pid
from procscope.linux.procfs import UNIFIED, parse_cgroups, parse_nspid
from procscope.values import frozen

_log = logging.getLogger(__name__)
_CGROUP_TEXT_BYTES = 1 << 16
"""More than a line of PATH_MAX for each of v1's controllers: the text is never cut."""
_MAX_PARENTS = 4096
_DIGEST_BYTES = 16
_KEPT_SWEEPS = 4
"""Who has read is remembered for so many sweeps, 20 seconds, and again so many: with very many
containers it is mostly somebody who reads every few seconds, in each of them."""
_PID = re.compile(r"[0-9]{1,10}")
_INIT_SCOPE = "/init.scope"
"""Where systemd puts itself inside the cgroup it was given."""


@frozen
class _Witness:
    """An open `/proc/PID/cgroup` and what it said.

    That is a kilobyte on v1, and kept as its length and a hash with this process's secret key.
    """

    fd: int
    length: int
    hash: int


@frozen
class _Answer:
    container: Container | None
    witnesses: tuple[_Witness, ...]
    is_whole: bool = True
    """Whether a runtime made it, or it has processes of its own numbering (rules 2 and 3)."""

    def holds(self) -> bool:
        """Tell whether all witnesses still say what they said."""
        try:
            for witness in self.witnesses:
                if hash(os.pread(witness.fd, witness.length + 1, 0)) != witness.hash:
                    return False
        except OSError:
            return False
        return True

    def close(self) -> None:
        for witness in self.witnesses:
            os.close(witness.fd)


class ContainerFinder(Protocol):
    """What `Identifier` and `Nobody` have in common."""

    def container_of(self, pid: Pid) -> Container | None:
        """Return the container of the process or thread `pid`; None is the host."""

    def tell_of_new_readers(self, tell: Callable[[Container], None]) -> None:
        """Call `tell` with the container of each reader that was not known before."""

    def sweep(self) -> bool:
        """Close the files of those who read no more; tell whether any are kept still."""
        ...

    def close(self) -> None:
        """Close every file that is kept open."""


class WholeContainerFinder(ContainerFinder, Protocol):
    """One that also tells containers from mere cgroups on the host."""

    def whole_container_of(self, pid: Pid) -> Container | None:
        """Return the container of `pid` where rule 2 or 3 finds it, else None."""


class Identifier:
    """Finds the container of a reader. Not safe for use by several threads."""

    def __init__(
        self, proc: str = "/proc", *, capacity: int = 256, budget: FileBudget | None = None
    ) -> None:
        """Answers are kept with `capacity` open files: one for each reader, or two by rule 3.

        `budget` has files to give up where there are no descriptors left to look at a reader.
        """
        self._proc = proc
        self._capacity = capacity
        self._budget = FileBudget() if budget is None else budget
        self._recent: dict[Pid, _Answer] = {}
        self._older: dict[Pid, _Answer] = {}
        """Of those who have not read lately."""
        self._sweeps = 0
        self._open_files = 0
        self._named: WeakValueDictionary[bytes, Container] = WeakValueDictionary()
        """By the digest of the text that names them: a text is a kilobyte on v1."""
        self._host_pid_namespace = self._pid_namespace("self")
        self._tell: Callable[[Container], None] = _tell_nobody

    def tell_of_new_readers(self, tell: Callable[[Container], None]) -> None:
        """See `ContainerFinder.tell_of_new_readers`."""
        self._tell = tell

    def container_of(self, pid: Pid) -> Container | None:
        """Return the container of the process or thread `pid`; None is the host.

        A reader that cannot be looked at for want of descriptors or memory is taken for the host,
        this time.
        """
        known = self._recent.get(pid)
        if known is None and pid in self._older:
            known = self._recent[pid] = self._older.pop(pid)
        if known is not None:
            if known.holds():
                return known.container
            del self._recent[pid]
            self._close(known)
        return self._find(pid)

    def _find(self, pid: Pid) -> Container | None:
        """Return the container of a process of which nothing is known."""
        if pid <= 0:
            return None
        try:
            answer = self._identify(pid)
        except OSError as error:
            _log.warning(
                "%s cannot be looked into, and a reader gets the host's files: %s",
                self._proc,
                error.strerror,
            )
            return None
        if answer is None:
            return None
        self._recent[pid] = answer
        self._open_files += len(answer.witnesses)
        while self._open_files > self._capacity:
            oldest = self._older or self._recent
            self._close(oldest.pop(next(iter(oldest))))
        if answer.container is not None:
            self._tell(answer.container)
        return answer.container

    def whole_container_of(self, pid: Pid) -> Container | None:
        """Return the container where rule 2 or 3 finds it, else None.

        A service of the host, such as the runtime itself, has a cgroup too, and is in none.
        """
        container = self.container_of(pid)
        answer = self._recent.get(pid)
        return container if answer is not None and answer.is_whole else None

    def sweep(self) -> bool:
        """Close the files of those who have not read for some sweeps.

        They are the ones that have gone, and others for whom it is worth little to keep them open.
        Tells whether any are kept still.
        """
        self._sweeps += 1
        if self._sweeps % _KEPT_SWEEPS == 0:
            self._forget_older()
        return bool(self._older or self._recent)

    def close(self) -> None:
        """Close every file that is kept open."""
        self._forget_older()
        self._close_older()

    def _forget_older(self) -> None:
        self._close_older()
        self._older, self._recent = self._recent, {}

    def _close_older(self) -> None:
        while self._older:
            self._close(self._older.popitem()[1])

    def _close(self, answer: _Answer) -> None:
        self._open_files -= len(answer.witnesses)
        answer.close()

    def _witness(self, pid: Pid) -> tuple[_Witness, bytes] | None:
        """Return an open `/proc/PID/cgroup`, and its text."""
        fd = self._open(f"{pid}/cgroup")
        if fd is None:
            return None
        try:
            text = os.pread(fd, _CGROUP_TEXT_BYTES, 0)
        except OSError:
            os.close(fd)
            return None
        return _Witness(fd, len(text), hash(text)), text

    def _open(self, name: str) -> int | None:
        """Open a file of a process; None where it has gone.

        Raises OSError where this process has run out of descriptors or memory.
        """
        try:
            return open_for_reading(f"{self._proc}/{name}", self._budget)
        except OSError as error:
            if error.errno in RUN_OUT:
                raise
            return None

    def _identify(self, pid: Pid) -> _Answer | None:
        found = self._witness(pid)
        if found is None:
            return None
        own, text = found
        named = self._container_by_text(text)
        if named is not None:
            return _Answer(named, (own,))
        paths = _cgroups(text)
        try:
            init = self._namespace_init(pid)
            found = None if init is None else self._witness(init)
        except OSError:
            os.close(own.fd)
            raise
        if found is not None:
            theirs, text = found
            paths_of_init = _without_init_scope(_cgroups(text))
            if _contains(paths_of_init, paths):
                return _Answer(container_of_paths(paths_of_init), (own, theirs))
            os.close(theirs.fd)
        return _Answer(container_of_paths(paths), (own,), is_whole=False)

    def _container_by_text(self, text: bytes) -> Container | None:
        """Return the container that a `/proc/PID/cgroup` names, the same one for all alike."""
        digest = blake2b(text, digest_size=_DIGEST_BYTES).digest()
        container = self._named.get(digest)
        if container is None:
            container = container_by_name(_cgroups(text))
            if container is not None:
                self._named[digest] = container
        return container

    def _pid_namespace(self, pid: Pid | str) -> int | None:
        try:
            return os.stat(f"{self._proc}/{pid}/ns/pid").st_ino
        except OSError:
            return None

    def _namespace_init(self, pid: Pid) -> Pid | None:
        """Return the init of `pid`'s PID namespace where that is not the host's."""
        namespace = self._pid_namespace(pid)
        if namespace is None or namespace == self._host_pid_namespace:
            return None
        for process in self._ancestry(pid):
            if self._pid_namespace(process) != namespace:
                break
            if self._nspid(process)[-1:] == (1,):
                return process
        # A process that was brought into the namespace (nsenter) has its parents outside of it.
        return next(
            (p for p in self._namespace_members(namespace) if self._nspid(p)[-1:] == (1,)), None
        )

    def _ancestry(self, pid: Pid) -> Iterator[Pid]:
        for _ in range(_MAX_PARENTS):
            yield pid
            parent = self._status_field(pid, "PPid")
            if not _PID.fullmatch(parent) or parent == "0":
                return
            pid = Pid(int(parent))

    def _namespace_members(self, namespace: int) -> Iterator[Pid]:
        for entry in os.listdir(self._proc):
            if entry.isdigit():
                pid = Pid(int(entry))
                if self._pid_namespace(pid) == namespace:
                    yield pid

    def _status(self, pid: Pid) -> str:
        fd = self._open(f"{pid}/status")
        if fd is None:
            return ""
        with open(fd, encoding="utf-8", errors="replace", newline="\n") as file:
            try:
                return file.read()
            except OSError:
                return ""

    def _status_field(self, pid: Pid, field: str) -> str:
        for line in self._status(pid).split("\n"):
            key, _, value = line.partition(":")
            if key == field:
                return value.strip()
        return ""

    def _nspid(self, pid: Pid) -> tuple[Pid, ...]:
        return parse_nspid(self._status(pid))


def _tell_nobody(container: Container) -> None:
    """Nobody wants to know."""


class Nobody:
    """Takes every reader for the host."""

    def tell_of_new_readers(self, tell: Callable[[Container], None]) -> None:
        """There are none in a container."""

    def container_of(self, pid: Pid) -> Container | None:
        """Return None, which is the host."""
        del pid
        return None

    def whole_container_of(self, pid: Pid) -> Container | None:
        """Return None."""
        del pid
        return None

    def sweep(self) -> bool:
        """Nothing is kept open."""
        return False

    def close(self) -> None:
        """Nothing is kept open."""


def container_by_name(paths: Mapping[str, CgroupPath]) -> Container | None:
    """Return the container that a known runtime made at one of `paths`, each path cut to it."""
    # Most hierarchies have the same path: it is looked at once, and kept once.
    by_path = {path: match_path(path) for path in set(paths.values())}
    matches = {controller: by_path[path] for controller, path in paths.items()}
    found = [match for match in matches.values() if match is not None]
    if not found:
        return None
    # Where hierarchies disagree, the innermost container is the reader's. A v1 hierarchy that the
    # runtime did not use stays as it is; the v2 one beside it (hybrid) then tells of others.
    best = max(found, key=lambda match: match.path.count("/"))
    cut = {
        intern(controller): match.path if match is not None else paths[controller]
        for controller, match in matches.items()
    }
    if matches.get(UNIFIED, best) is None:
        cut[UNIFIED] = CgroupPath("/")
    return container_of_paths(cut, runtime=best.runtime, id_=best.id)


def _cgroups(text: bytes) -> Mapping[str, CgroupPath]:
    return parse_cgroups(text.decode("utf-8", "surrogateescape"))


def _without_init_scope(paths: Mapping[str, CgroupPath]) -> Mapping[str, CgroupPath]:
    return {
        controller: CgroupPath(path.removesuffix(_INIT_SCOPE) or "/")
        for controller, path in paths.items()
    }


def _contains(outer: Mapping[str, CgroupPath], inner: Mapping[str, CgroupPath]) -> bool:
    """Tell whether every path of `inner` is that of `outer` or below it."""
    return all(
        controller in outer and f"{path}/".startswith(f"{outer[controller].rstrip('/')}/")
        for controller, path in inner.items()
    )
