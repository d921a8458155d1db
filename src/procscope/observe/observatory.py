"""Renders any view for any container, with everything that is worth keeping between two reads.

One rule for every file when something cannot be read: the reader gets the host's bytes, whole, and
the fallback is reported once to the caller of this module, which counts and logs it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

from procscope.cgroup.cgroup import Cgroup
from procscope.cgroup.files import CgroupGone, FileBudget
from procscope.cgroup.hierarchy import Hierarchies
from procscope.containers.container import Container
from procscope.ids import ContainerKey, CpuId
from procscope.observe.container import ContainerObserver, Limits
from procscope.observe.host import HostFiles
from procscope.observe.records import RecordStore
from procscope.observe.registry import View
from procscope.values import frozen
from procscope.views.cpus import CpuCount

_MAX_OBSERVERS = 1024
"""Containers whose open files a worker keeps. One that was not read since the last sweep goes
first, else the one that was made first: to have them in the order of their reads would touch the
entries of two other containers at each."""
_CHECKED_FOR_EACH_NEW_ONE = 4
_UNREAD_SWEEPS = 12
"""A container that nobody has read for so many sweeps, a minute, is made anew when it is."""

_T = TypeVar("_T")


@frozen
class Fallback:
    """A reader got the host's bytes in the place of its container's."""

    view: str
    container: Container
    error: Exception


class OfLifetime(NamedTuple):
    """What one lifetime of a container has, or sees."""

    content: bytes = b""
    visible: tuple[CpuId, ...] = ()
    age_ns: int = 0
    """For how long it has had processes; 0 where that is not known, or this is the host's."""
    limits: Limits | None = None
    """What it was made with, where it is made of nothing else."""


def ignore_fallback(fallback: Fallback) -> None:
    """Report a fallback to nobody."""


class Observatory:
    """All containers that one worker knows. Not safe for use by several threads."""

    def __init__(
        self,
        hierarchies: Hierarchies,
        host: HostFiles,
        records: RecordStore | None,
        *,
        cpu_count: CpuCount = CpuCount.QUOTA,
        on_fallback: Callable[[Fallback], None] = ignore_fallback,
        budget: FileBudget | None = None,
    ) -> None:
        self.host = host
        self._hierarchies = hierarchies
        self._records = records
        self._cpu_count = cpu_count
        self._on_fallback = on_fallback
        self._budget = FileBudget() if budget is None else budget
        self._observers: dict[ContainerKey, ContainerObserver] = {}
        self._host_sizes: dict[str, int] = {}
        self._to_check: dict[ContainerKey, None] = {}
        self._records_changed_ns: int | None = None

    def render(self, view: View, container: Container | None) -> bytes:
        """Return the content of `view` for a reader in `container`; None is the host.

        Raises OSError where the host has no such file, or where the view's errors are meant for
        the reader.
        """
        if container is None:
            content = self.host.read_proc(view.name)
            self._host_sizes[view.name] = len(content)
            return content
        try:
            try:
                return self._observer(container).render(view.name, view.render)
            except CgroupGone:
                # The same path may be another cgroup by now: look once more.
                self._forget(container.key)
                return self._observer(container).render(view.name, view.render)
        except OSError as error:
            if view.errors_reach_reader and not isinstance(error, CgroupGone):
                raise
            return self._fall_back(view, container, error)
        except Exception as error:  # noqa: BLE001 - the reader gets a whole file, whatever it was
            return self._fall_back(view, container, error)

    def lifetime(self, container: Container) -> str:
        """Return a name for this lifetime of the container's cgroup. Raises OSError, ValueError.

        The cgroup that is made anew at the same path has another one.
        """
        return self._with_observer(container, lambda one: one.record_name)

    def known_lifetime(self, container: Container) -> str | None:
        """Return the same without looking; None where the container is not known here."""
        observer = self._observers.get(container.key)
        return None if observer is None else observer.record_name

    def see_again(self, container: Container) -> None:
        """Look whether what is known of `container` is still it: somebody is new in it.

        Whoever was in a cgroup of the same path before has gone with that one.
        """
        observer = self._observers.get(container.key)
        if observer is not None and not observer.cgroup.exists():
            self._forget(container.key)

    def render_lifetime(self, view: View, container: Container, lifetime: str) -> OfLifetime | None:
        """As `render`, for one `lifetime` of a container; None once that is over."""

        def render(one: ContainerObserver) -> OfLifetime | None:
            if one.record_name != lifetime:
                return None
            content = one.render(view.name, view.render)
            limits: Limits | None = None
            if view.follows_limits:
                limits = one.limits(self.host.steady_until_ns([view.name]))
            return OfLifetime(content, age_ns=_age_ns(one), limits=limits)

        try:
            return self._with_observer(container, render)
        except CgroupGone:
            return None
        except Exception as error:  # noqa: BLE001 - as in `render`
            return OfLifetime(self._fall_back(view, container, error))

    def visible_cpus_of_lifetime(self, container: Container, lifetime: str) -> OfLifetime | None:
        """Return the CPUs that one `lifetime` of a container sees; None once that is over."""

        def visible(one: ContainerObserver) -> OfLifetime | None:
            if one.record_name != lifetime:
                return None
            cpus = one.visible_cpus()
            limits = one.limits(self.host.steady_until_ns())
            return OfLifetime(visible=cpus, age_ns=_age_ns(one), limits=limits)

        try:
            return self._with_observer(container, visible)
        except CgroupGone:
            return None
        except (OSError, ValueError) as error:
            self._on_fallback(Fallback("sys/devices/system/cpu", container, error))
            return OfLifetime(visible=self.host.online_cpus())

    def age_of_lifetime_ns(self, container: Container, lifetime: str) -> int:
        """Return for how long one `lifetime` of a container has had processes.

        0 where that is not known, or it is over.
        """
        try:
            one = self._observer(container)
            return _age_ns(one) if one.record_name == lifetime else 0
        except (OSError, ValueError):
            return 0

    def size(self, view: View, container: Container | None) -> int:
        """Return how long `view` was when it was last rendered for `container`, or is now.

        0 where it cannot be read.
        """
        sizes: Mapping[str, int] = self._host_sizes
        if container is not None:
            observer = self._observers.get(container.key)
            sizes = {} if observer is None else observer.sizes
        if view.name in sizes:
            return sizes[view.name]
        try:
            return len(self.render(view, container))
        except OSError:
            return 0

    def track(self, container: Container | None) -> None:
        """Begin to keep a record of `container`: its load is sampled from now on."""
        if container is None:
            return
        try:
            self._with_observer(container, lambda one: None)
        except (OSError, ValueError) as error:
            self._on_fallback(Fallback("the record", container, error))

    def visible_cpus(self, container: Container | None) -> tuple[CpuId, ...]:
        """Return the CPUs that a reader in `container` sees. Raises OSError, ValueError."""
        if container is None:
            return self.host.online_cpus()
        try:
            return self._with_observer(container, ContainerObserver.visible_cpus)
        except (OSError, ValueError) as error:
            self._on_fallback(Fallback("sys/devices/system/cpu", container, error))
            return self.host.online_cpus()

    def close(self) -> None:
        """Close every file that is kept open."""
        while self._observers:
            self._forget(next(iter(self._observers)))
        self.host.close()

    def _fall_back(self, view: View, container: Container, error: Exception) -> bytes:
        self._on_fallback(Fallback(view.name, container, error))
        if view.errors_reach_reader:
            # The host's pressure would tell of other containers.
            raise OSError(errno.EOPNOTSUPP, "the container's cgroup is gone")
        return self.host.read_proc(view.name)

    def _with_observer(self, container: Container, use: Callable[[ContainerObserver], _T]) -> _T:
        try:
            return use(self._observer(container))
        except CgroupGone:
            # The same path may be another cgroup by now: look once more.
            self._forget(container.key)
            return use(self._observer(container))

    def _observer(self, container: Container) -> ContainerObserver:
        observer = self._observers.get(container.key)
        if observer is not None:
            observer.unread_sweeps = 0
            return observer
        self._check(_CHECKED_FOR_EACH_NEW_ONE)
        cgroup = Cgroup(self._hierarchies, container.cgroups, self._budget)
        observer = ContainerObserver(
            container, cgroup, self.host, self._records, self._cpu_count, self._budget
        )
        self._observers[container.key] = observer
        self._to_check[container.key] = None
        if len(self._observers) > _MAX_OBSERVERS:
            self._forget(self._least_wanted())
        return observer

    def _least_wanted(self) -> ContainerKey:
        unread = (key for key, one in self._observers.items() if one.unread_sweeps)
        return next(unread, next(iter(self._observers)))

    def sweep(self) -> bool:
        """Close the files of containers whose cgroup has gone, and of those that nobody reads.

        Tells whether any are kept still. The sampler removes the record of a cgroup that has gone:
        where no record was made or removed since the last sweep, no cgroup is looked at.
        """
        for key, observer in list(self._observers.items()):
            observer.unread_sweeps += 1
            if observer.unread_sweeps > _UNREAD_SWEEPS:
                self._forget(key)
        changed_ns = None if self._records is None else self._records.changed_ns()
        if changed_ns is None or changed_ns != self._records_changed_ns:
            self._check(len(self._to_check))
        self._records_changed_ns = changed_ns
        return bool(self._observers)

    def _check(self, count: int) -> None:
        """Look whether the next `count` containers, in turn, are still there.

        For each new one several are looked at, so that those that have gone are never many more
        than those that are there, however fast they come and go.
        """
        for _ in range(min(count, len(self._to_check))):
            key = next(iter(self._to_check))
            if self._observers[key].cgroup.exists():
                del self._to_check[key]
                self._to_check[key] = None
            else:
                self._forget(key)

    def _forget(self, key: ContainerKey) -> None:
        observer = self._observers.pop(key, None)
        if observer is not None:
            del self._to_check[key]
            observer.close()


def _age_ns(observer: ContainerObserver) -> int:
    try:
        return observer.age_ns()
    except (OSError, ValueError):
        return 0
