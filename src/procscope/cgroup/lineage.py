"""A cgroup and its ancestors in one hierarchy, and how the limits of all of them combine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from procscope.cgroup.files import CgroupDirectory, NoContent
from procscope.cgroup.model import Amount, CpuQuota, Limit, Missing, Unlimited
from procscope.cgroup.parsers import parse_flat_keyed, parse_limit, parse_number
from procscope.values import frozen

Value = TypeVar("Value")


@frozen
class Lineage:
    """One cgroup in one hierarchy."""

    own: CgroupDirectory
    ancestors: tuple[CgroupDirectory, ...] = ()
    """Nearest first, without the hierarchy's root."""

    @property
    def all(self) -> tuple[CgroupDirectory, ...]:
        """The cgroup itself, then its ancestors."""
        return (self.own, *self.ancestors)


def read_value(
    directory: CgroupDirectory, name: str, parse: Callable[[bytes], Value]
) -> Value | NoContent:
    """Return the parsed file; what `parse` refuses is UNREADABLE. Raises CgroupGone."""
    content = directory.read(name)
    if isinstance(content, Missing):
        return content
    try:
        return parse(content)
    except ValueError:
        return Missing.UNREADABLE


def read_amount(directory: CgroupDirectory, name: str) -> Amount:
    """Return the one number of a file. Raises CgroupGone."""
    return read_value(directory, name, parse_number)


def read_count(directory: CgroupDirectory, name: str) -> int:
    """Return the one number of a file, 0 where there is none. Raises CgroupGone."""
    amount = read_amount(directory, name)
    return 0 if isinstance(amount, Missing) else amount


def read_flat(directory: CgroupDirectory, name: str) -> dict[str, int]:
    """Return a flat keyed file, empty where there is none. Raises CgroupGone."""
    content = directory.read(name)
    return {} if isinstance(content, Missing) else parse_flat_keyed(content)


def read_limit(directory: CgroupDirectory, name: str) -> Limit:
    """Return a limit. What cannot be read limits nothing. Raises CgroupGone."""
    limit = read_value(directory, name, parse_limit)
    return Missing.UNLIMITED if isinstance(limit, Missing) else limit


def smallest_limit(limits: Sequence[Limit]) -> Limit:
    """Return the smallest of `limits`; UNLIMITED where none limits."""
    numbers = [limit for limit in limits if not isinstance(limit, Missing)]
    return min(numbers, default=Missing.UNLIMITED)


def binding_index(limits: Sequence[Limit]) -> int:
    """Return which of `limits`, the container's own first, binds; 0 where none limits.

    Of equal limits the outermost binds: it is reached first, as it counts siblings too.
    """
    smallest = smallest_limit(limits)
    if isinstance(smallest, Missing):
        return 0
    return max(index for index, limit in enumerate(limits) if limit == smallest)


def binding_limit(
    directories: Sequence[CgroupDirectory], limit_name: str, usage_name: str
) -> tuple[Limit, int]:
    """Return the smallest limit over `directories` and the usage of the one that sets it.

    Raises CgroupGone.
    """
    limits: list[Limit] = [read_limit(directory, limit_name) for directory in directories]
    index = binding_index(limits)
    return limits[index], read_count(directories[index], usage_name)


def smallest_quota(quotas: Sequence[CpuQuota | Unlimited]) -> CpuQuota | Unlimited:
    """Return the quota that gives the least CPU time, compared without rounding."""
    smallest: CpuQuota | Unlimited = Missing.UNLIMITED
    for quota in quotas:
        if isinstance(quota, Missing):
            continue
        if (
            isinstance(smallest, Missing)
            or quota.quota_usec * smallest.period_usec < smallest.quota_usec * quota.period_usec
        ):
            smallest = quota
    return smallest
