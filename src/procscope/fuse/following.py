"""Going where the reader is, and making way for it there.

A reader that reads on and on beside nothing else hands over to the loop and back six times in a
read. The scheduler puts whoever is woken on an idle CPU if it finds one (`select_idle_sibling()` in
kernel/sched/fair.c), so the two of them stay on two CPUs, of which one always sleeps; to wake it
takes longer than all the rest, in a virtual machine tens of microseconds. Followed to its CPU alone
the reader would be put on another one, as the loop makes the first one busy. But a CPU that runs
nothing besides SCHED_IDLE tasks counts as idle (`sched_idle_cpu()`, Linux 5.4): of that class, the
loop is where its reader is woken.

It is a mode for this one case, and ends with it: when another reader comes, when this one pauses,
or where it is of no use, then for longer and longer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from procscope.ids import CpuId, Pid

_SLOW_FROM_NS: Final = 40_000
_SLOW_TO_NS: Final = 400_000
"""Between two requests of one who reads without a pause, where a sleeping CPU is woken for each.
Two CPUs that do not sleep deeply hand over faster; a reader that computes in between is slower."""
_SLOW_TIMES: Final = 8
"""Two reads, of four requests each."""
_SLOW_TIMES_FOLLOWING: Final = 2
_TIMES_IN_VAIN: Final = 8
PATIENCE_S: Final = 0.02
"""How long to wait for the next request before the mode ends."""
_STARVED_NS: Final = 5_000_000
"""It was woken and has not run for so long: others compute, or the reader has paused."""
_LEAST_BREAK_NS: Final = 10_000_000
_MOST_BREAK_NS: Final = 1_280_000_000
_WORTHWHILE_NS: Final = 200_000_000


class Placing(Protocol):
    """Where the calling process runs."""

    def make_way_on(self, cpu: CpuId, /) -> bool:
        """Stay on that CPU, behind all others; tell whether that could be done."""
        ...

    def restore(self) -> None:
        """Run as before."""
        ...


class Follower:
    """Decides, each time that a loop is woken, whether to follow its reader."""

    def __init__(self, placement: Placing, cpu_of: Callable[[Pid], CpuId | None]) -> None:
        self._placement = placement
        self._cpu_of = cpu_of
        self.is_following = False
        self._pid = Pid(0)
        self._cpu: CpuId | None = None
        self._times_slow = 0
        self._in_vain = 0
        self._since_ns = 0
        self._break_ns = _LEAST_BREAK_NS
        self._not_before_ns = 0

    def woken(self, pid: Pid, now_ns: int, since_last_ns: int) -> None:
        """The loop has been woken by `pid`, 0 if that is not known.

        So long after it has begun the last request before.
        """
        if pid and pid != self._pid:
            self.meet(pid, now_ns)
            self._let_go()
            self._pid = pid
        elif since_last_ns > _SLOW_TO_NS:
            self._times_slow = 0
            if self.is_following and since_last_ns > _STARVED_NS:
                self._rest(now_ns, _MOST_BREAK_NS)
                self._let_go()
        elif since_last_ns > _SLOW_FROM_NS:
            self._times_slow += 1
            if self.is_following:
                if self._times_slow >= _SLOW_TIMES_FOLLOWING:
                    self._look_again(now_ns)
            elif self._pid and self._times_slow >= _SLOW_TIMES and now_ns >= self._not_before_ns:
                self._begin(now_ns)
        elif self._times_slow:
            self._times_slow -= 1

    def meet(self, pid: Pid, now_ns: int) -> None:
        """A request of `pid` waits beside others: two readers are on two CPUs."""
        if self.is_following and pid != self._pid:
            self._rest(now_ns)
            self._let_go()

    def pause(self) -> None:
        """No request has come for `PATIENCE_S`, or the loop ends."""
        self._let_go()

    def _begin(self, now_ns: int) -> None:
        self._since_ns = now_ns
        if self._go_to(self._cpu_of(self._pid)):
            self.is_following = True
        else:
            self._rest(now_ns)

    def _go_to(self, cpu: CpuId | None) -> bool:
        self._times_slow = self._in_vain = 0
        self._cpu = cpu
        return cpu is not None and self._placement.make_way_on(cpu)

    def _look_again(self, now_ns: int) -> None:
        """It hands over slowly all the same: go after the reader, if that has been moved."""
        cpu = self._cpu_of(self._pid)
        if cpu != self._cpu:
            if not self._go_to(cpu):
                self._let_go()
            return
        self._times_slow = 0
        self._in_vain += 1
        if self._in_vain >= _TIMES_IN_VAIN:
            self._rest(now_ns)
            self._let_go()

    def _rest(self, now_ns: int, break_ns: int = 0) -> None:
        """Do not follow anybody for a while, for twice as long as after the last time."""
        if now_ns - self._since_ns > _WORTHWHILE_NS:
            self._break_ns = _LEAST_BREAK_NS
        self._break_ns = max(self._break_ns, break_ns)
        self._not_before_ns = now_ns + self._break_ns
        self._break_ns = min(2 * self._break_ns, _MOST_BREAK_NS)

    def _let_go(self) -> None:
        self._times_slow = self._in_vain = 0
        self._pid = Pid(0)
        if self.is_following:
            self.is_following = False
            self._placement.restore()
