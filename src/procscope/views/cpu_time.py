"""The CPU time that a container is told of, for `stat` and `uptime`.

Two promises hold at every step, whatever the kernel's counters do: the columns of each visible
CPU add up to the container's age, and no column ever decreases.

A step hands out the time since the last one. Each visible CPU has that much room. Time that was
used comes first, then time in which the container was throttled (steal), and the rest is idle.
What finds no room waits for the next step, up to a bound; beyond it, it is given up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from procscope.cgroup.model import CpuUsage, PerCpuTime
from procscope.ids import CpuId
from procscope.views.cpu_ledger import CpuColumns, CpuLedger, TakenTime

TICKS_PER_SECOND = 100
"""USER_HZ, in which the kernel prints CPU times on every architecture that Linux has now."""

_NS_PER_TICK = 1_000_000_000 // TICKS_PER_SECOND
_USED_CARRY_NS = 1_000_000_000
"""Per visible CPU. It evens out counters that were read a little after the clock."""
_STEAL_CARRY_NS = 200_000_000
"""Per visible CPU. Throttled time adds up over CPUs, so it can exceed the room for ever."""

_NO_TIME = PerCpuTime(0, 0, 0)
_NEW_LEDGER = CpuLedger(0, {}, TakenTime(), {})

_Kind = Literal["user", "nice", "system", "steal"]


def advance(
    ledger: CpuLedger | None,
    usage: CpuUsage,
    visible: Sequence[CpuId],
    age_ns: int,
    *,
    per_cpu: bool,
) -> CpuLedger:
    """Return the ledger after `age_ns` of the container's life, with columns for all of `visible`.

    `ledger` is None when the container is seen for the first time: what it used since its start
    is handed out then, as far as there is room. `per_cpu` keeps used time on the CPU for which
    the kernel counted it, where it does; otherwise it is spread evenly, and so it is in the first
    step after one in which the time of each CPU was not known. A counter that has gone
    backwards (the cgroup was made anew) counts on from where it is. An age that does not advance
    hands out nothing.
    """
    before = ledger or _NEW_LEDGER
    age_ticks = max(before.age_ticks, age_ns // _NS_PER_TICK)
    if not per_cpu and ledger is not None and _is_nothing(usage, ledger.taken):
        rows = _all_idle(ledger, visible, age_ticks)
        if rows is not None:
            return CpuLedger(age_ticks, rows, ledger.taken, dict(usage.per_cpu or {}))
    step = _Step(before, visible, age_ticks - before.age_ticks)
    # What finds no room at first sight is from a time when the container had more CPUs.
    carried_cpus = 0 if ledger is None else len(step.room)
    if per_cpu and usage.per_cpu is not None and (ledger is None or ledger.taken_per_cpu):
        taken = _all_taken(usage)
        taken_per_cpu = _hand_out_per_cpu(step, usage.per_cpu, ledger)
    else:
        taken = _hand_out_evenly(step, usage, before.taken, _USED_CARRY_NS * carried_cpus)
        taken_per_cpu = dict(usage.per_cpu or {})
    steal_left_ns = _hand_out_steal(step, usage, before.taken, _STEAL_CARRY_NS * carried_cpus)
    taken = TakenTime(
        taken.user_ns, taken.nice_ns, taken.system_ns, usage.throttled_ns - steal_left_ns
    )
    return CpuLedger(age_ticks, {**before.columns, **step.close(age_ticks)}, taken, taken_per_cpu)


def _is_nothing(usage: CpuUsage, taken: TakenTime) -> bool:
    """Tell whether there is no whole tick of any kind to be handed out."""
    return (
        0 <= usage.user_ns - taken.user_ns < _NS_PER_TICK
        and 0 <= usage.nice_ns - taken.nice_ns < _NS_PER_TICK
        and 0 <= usage.system_ns - taken.system_ns < _NS_PER_TICK
        and 0 <= usage.throttled_ns - taken.throttled_ns < _NS_PER_TICK
    )


def _all_idle(
    ledger: CpuLedger, visible: Sequence[CpuId], age_ticks: int
) -> dict[CpuId, CpuColumns] | None:
    """Return the columns after a step in which nothing is handed out; None with a new CPU."""
    rows = dict(ledger.columns)
    for cpu in visible:
        row = rows.get(cpu)
        if row is None:
            return None
        used = row.user + row.nice + row.system + row.steal
        rows[cpu] = CpuColumns(row.user, row.nice, row.system, age_ticks - used, row.steal)
    return rows


def visible_columns(ledger: CpuLedger, visible: Iterable[CpuId]) -> list[CpuColumns]:
    """Return the columns of each visible CPU.

    Raises ValueError where the ledger has none for one of them.
    """
    try:
        return [ledger.columns[cpu] for cpu in visible]
    except KeyError as error:
        raise ValueError(f"the ledger has no columns for CPU {error}") from error


class _Step:
    """One step while it is handed out: the room that is left and the rows so far."""

    def __init__(self, before: CpuLedger, visible: Sequence[CpuId], ticks: int) -> None:
        self.room = dict.fromkeys(visible, ticks)
        self._rows: dict[CpuId, dict[_Kind, int]] = {}
        for cpu in self.room:
            row = before.columns.get(cpu, CpuColumns())
            self._rows[cpu] = {
                "user": row.user,
                "nice": row.nice,
                "system": row.system,
                "steal": row.steal,
            }

    def give(self, cpu: CpuId, kind: _Kind, ticks: int) -> None:
        """Add `ticks`, which must not exceed the room of `cpu`."""
        self._rows[cpu][kind] += ticks
        self.room[cpu] -= ticks

    def spread(self, kind: _Kind, ticks: int) -> None:
        """Add `ticks`, which must not exceed all room, evenly.

        A remainder goes to the CPUs that have the least of this kind so far, so that it goes
        round from step to step.
        """
        while ticks > 0:
            open_cpus = [cpu for cpu, room in self.room.items() if room > 0]
            open_cpus.sort(key=lambda cpu: self._rows[cpu][kind])
            each, remainder = divmod(ticks, len(open_cpus))
            for place, cpu in enumerate(open_cpus):
                part = min(self.room[cpu], each + 1 if place < remainder else each)
                self.give(cpu, kind, part)
                ticks -= part

    def close(self, age_ticks: int) -> dict[CpuId, CpuColumns]:
        """Return the columns; what is missing to the age, also from time away, is idle."""
        return {
            cpu: CpuColumns(
                user=row["user"],
                nice=row["nice"],
                system=row["system"],
                idle=age_ticks - sum(row.values()),
                steal=row["steal"],
            )
            for cpu, row in self._rows.items()
        }


class _Used(NamedTuple):
    """The kinds of used time, all in nanoseconds or all in ticks."""

    user: int
    nice: int
    system: int

    def ticks_within(self, room: int) -> _Used:
        """Return the whole ticks of these nanoseconds, scaled to add up to at most `room`."""
        user, nice, system = (ns // _NS_PER_TICK for ns in self)
        total = user + nice + system
        if total <= room:
            return _Used(user, nice, system)
        # Rounding the running sum, not each part, makes the parts add up to `room` exactly.
        scaled_user = user * room // total
        scaled_user_nice = (user + nice) * room // total
        return _Used(scaled_user, scaled_user_nice - scaled_user, room - scaled_user_nice)

    def left_after(self, given: _Used, bound_ns: int) -> _Used:
        """Return these nanoseconds without `given` ticks, scaled to at most `bound_ns`."""
        left = [ns - ticks * _NS_PER_TICK for ns, ticks in zip(self, given, strict=True)]
        total = sum(left)
        return _Used(*left) if total <= bound_ns else _Used(*(n * bound_ns // total for n in left))


def _hand_out_evenly(step: _Step, usage: CpuUsage, taken: TakenTime, bound_ns: int) -> TakenTime:
    pending = _Used(
        _growth(usage.user_ns, taken.user_ns),
        _growth(usage.nice_ns, taken.nice_ns),
        _growth(usage.system_ns, taken.system_ns),
    )
    given = pending.ticks_within(sum(step.room.values()))
    step.spread("user", given.user)
    step.spread("nice", given.nice)
    step.spread("system", given.system)
    left = pending.left_after(given, bound_ns)
    return TakenTime(
        usage.user_ns - left.user, usage.nice_ns - left.nice, usage.system_ns - left.system
    )


def _hand_out_per_cpu(
    step: _Step, counted: Mapping[CpuId, PerCpuTime], ledger: CpuLedger | None
) -> dict[CpuId, PerCpuTime]:
    """Hand out each visible CPU's own time; that of a hidden CPU is given up."""
    taken = dict(counted)
    for cpu in step.room.keys() & counted.keys():
        now = counted[cpu]
        # A CPU that an existing ledger has no counter of was not counted per CPU until now.
        then = _NO_TIME if ledger is None else ledger.taken_per_cpu.get(cpu, now)
        pending = _divide(now, then)
        given = pending.ticks_within(step.room[cpu])
        step.give(cpu, "user", given.user)
        step.give(cpu, "system", given.system)
        left_ns = sum(pending.left_after(given, 0 if ledger is None else _USED_CARRY_NS))
        # The samples of time that is not handed out yet divide it when it is.
        samples = now if any(given) else then
        taken[cpu] = PerCpuTime(samples.user_ns, samples.system_ns, now.usage_ns - left_ns)
    return taken


def _divide(now: PerCpuTime, then: PerCpuTime) -> _Used:
    """Return the exact growth, divided as the samples grew, or as all of them where none did."""
    growth_ns = _growth(now.usage_ns, then.usage_ns)
    user_ns = _growth(now.user_ns, then.user_ns)
    both_ns = user_ns + _growth(now.system_ns, then.system_ns)
    if both_ns == 0:
        user_ns, both_ns = now.user_ns, now.user_ns + now.system_ns
    part_ns = growth_ns * user_ns // both_ns if both_ns else growth_ns
    return _Used(part_ns, 0, growth_ns - part_ns)


def _hand_out_steal(step: _Step, usage: CpuUsage, taken: TakenTime, bound_ns: int) -> int:
    """Hand out throttled time; return what is left of it, at most `bound_ns`."""
    pending_ns = _growth(usage.throttled_ns, taken.throttled_ns)
    given = min(pending_ns // _NS_PER_TICK, sum(step.room.values()))
    step.spread("steal", given)
    return min(pending_ns - given * _NS_PER_TICK, bound_ns)


def _all_taken(usage: CpuUsage) -> TakenTime:
    """Return the mark of the counters that are not in use, so that none counts twice later."""
    return TakenTime(usage.user_ns, usage.nice_ns, usage.system_ns)


def _growth(now_ns: int, taken_ns: int) -> int:
    return max(0, now_ns - taken_ns)
